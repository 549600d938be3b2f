#!/usr/bin/env python3
"""Measures the daemon while nothing is due: 10,000 daily reports, each with a stored date.

The exit code is 1 if a limit is exceeded. Needs `cargo build --release`.
"""

import os
import shutil
import subprocess
import sys
import time

import history

REPORTS = 500  # in each of twenty workspaces
SECONDS = 300

CORE_PERCENT_LIMIT = 1
MIB_LIMIT = 200


def main():
    # No report waits, and none is fetched again.
    history.OPEN = history.STATISTICS = 0
    folder = history.FOLDER / "idle"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    port = history.free_port()
    history.configure(folder, REPORTS, port)
    reports = history.fill(folder / "moesync.db", REPORTS, 1)
    with open(folder / "run.log", "w") as log:
        process = subprocess.Popen(
            [history.MOESYNC, "--config", folder / "moesync.toml", "run"], env=history.ENVIRONMENT, stdout=log, stderr=log
        )

    def seconds():
        fields = open(f"/proc/{process.pid}/stat").read().rsplit(")", 1)[1].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    try:
        while history.get(port, "/readyz") is None:
            if process.poll() is not None:
                sys.exit(f"the daemon did not become ready; see {folder}/run.log")
            time.sleep(0.1)
        # Recovery reads beside the loop meanwhile.
        time.sleep(60)
        before = seconds()
        time.sleep(SECONDS)
        percent = 100 * (seconds() - before) / SECONDS
        status = dict(line.split(":", 1) for line in open(f"/proc/{process.pid}/status"))
        mib = int(status["VmHWM"].split()[0]) / 1024
    finally:
        process.terminate()
        process.wait()
    shutil.rmtree(folder)
    print(f"{reports:,} idle daily reports: {percent:.2f} % of a core (limit {CORE_PERCENT_LIMIT}), {mib:.0f} MiB (limit {MIB_LIMIT})")
    if percent > CORE_PERCENT_LIMIT or mib > MIB_LIMIT:
        sys.exit("limits exceeded")


if __name__ == "__main__":
    main()
