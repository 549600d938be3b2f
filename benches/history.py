#!/usr/bin/env python3
"""Compares a ledger of a million stored partitions, a year of 2,740 daily reports, with one of a few thousand.

Creates ledgers by SQL with the schema before the migration that adds figures, lets moesync migrate them, and measures
commands, daemon and page. The exit code is 1 if a limit is exceeded.

Needs `cargo build --release`, GNU time, and 1 GB of disk below target/bench.
"""

import datetime
import hashlib
import os
import pathlib
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
MOESYNC = pathlib.Path(os.environ.get("MOESYNC", ROOT / "target/release/moesync"))
FOLDER = ROOT / "target/bench/history"
MIGRATIONS = ROOT / "src/ledger/sqlite/migrations"
MIB = 1024 * 1024

WORKSPACES = 20
REPORTS = 137
# The number of each workspace's reports that are statistics, which are fetched again for three days.
STATISTICS = 10
DAYS = {"1k": 1, "1M": 365}
OPEN = 5
RUNS = 5
# The number of migrations before the figures, which the next migration counts over existing rows.
FIGURES = 5

RATIO_LIMIT = 2
SECONDS_LIMIT = {
    "status --report X --json": 0.1,
    "explain": 0.1,
    "ready": 1,
    "page": 0.3,
    "metrics": 0.3,
    "readyz": 0.3,
    "overview API": 0.3,
}
MIB_LIMIT = {"status --report X --json": 64, "explain": 64, "daemon": 100}
# The page is left out: it shows up to thirty dates of each report, and the smaller ledger has one. So is what prints all
# partitions.
RATIO_OF = ["status", "status --check", "status --report X --json", "explain", "plan", "ready", "metrics", "readyz"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def source(number):
    return "campaign_stats" if number < STATISTICS else "campaign_report"


def configure(folder, reports, port):
    """Writes a configuration with `reports` reports in each workspace, of a MoEngage that refuses every connection."""
    parts = [
        f'[ledger]\nurl = "sqlite://{folder}/moesync.db"\n[web]\nlisten = "127.0.0.1:{port}"\n'
        f'[[destinations]]\nname = "here"\nurl = "file://{folder}/reports"\n'
    ]
    for workspace in range(WORKSPACES):
        parts.append(
            f'[[workspaces]]\nname = "workspace-{workspace:02}"\napp_id = "APP{workspace}"\ntimezone = "UTC"\n'
            f'base_url = "http://127.0.0.1:9"\nsecret_key_env = "BENCH_SECRET"\n'
        )
        for number in range(reports):
            parts.append(
                f'[[reports]]\nworkspace = "workspace-{workspace:02}"\nid = "report-{number:03}"\nname = "Report {number}"\n'
                f'source = "{source(number)}"\ndestination = "here"\nbuffer = "0s"\n'
                'schedule = { every = "day", at = "00:00" }\n'
            )
            if source(number) == "campaign_stats":
                parts.append('metric_type = "TOTAL"\nattribution_type = "CLICK_THROUGH"\nrefresh_days = 3\n')
    (folder / "reports").mkdir()
    (folder / "moesync.toml").write_text("\n".join(parts))


def fill(path, reports, days):
    """Writes the stored partitions of `days` days, and some open ones; returns their number."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = OFF")
    database.execute(
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, "
        "installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL, "
        "execution_time BIGINT NOT NULL)"
    )
    for file in sorted(MIGRATIONS.glob("*.sql"))[:FIGURES]:
        database.executescript(file.read_text())
        version, description = file.stem.split("_", 1)
        checksum = hashlib.sha384(file.read_bytes()).digest()
        row = (int(version), description.replace("_", " "), checksum)
        database.execute("INSERT INTO _sqlx_migrations VALUES (?, ?, CURRENT_TIMESTAMP, 1, ?, 0)", row)

    now = int(time.time() * 1000)
    today = datetime.datetime.now(datetime.timezone.utc).date()
    sha256 = hashlib.sha256(b"").hexdigest()
    epoch = datetime.date(1970, 1, 1)

    def rows():
        for back in reversed(range(days)):
            date = today - datetime.timedelta(days=back)
            at = (date - epoch).days * 86_400_000
            for workspace in range(WORKSPACES):
                for number in range(reports):
                    is_open = back == 0 and number < OPEN and workspace == 0
                    kind = source(number)
                    stored_at = now - 1000 if back < 4 else at + 3_600_000
                    expiry = at + 7 * 86_400_000 if kind == "campaign_report" else None
                    name = f"workspace-{workspace:02}", f"report-{number:03}"
                    key = f"{name[0]}/{name[1]}/date={date}/Report_{number}_{date:%Y%m%d}.zip"
                    yield (
                        *name, str(date), kind, at, at, expiry, "open" if is_open else "stored",
                        "unavailable" if is_open else "stored", 1, 1, 1, stored_at, now if is_open else None,
                        "connection refused" if is_open else None,
                        *((None, None, None, None) if is_open else (key, 70_000, sha256, stored_at)),
                    )  # fmt: skip

    database.execute("BEGIN")
    database.executemany(
        "INSERT INTO partitions (workspace, report, date, source, generated_at, due_at, expires_at, settled, outcome, "
        "attempts, streak, repeats, last_attempt_at, next_attempt_at, message, object_key, size, sha256, stored_at, seen) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
        rows(),
    )
    database.execute(
        "INSERT INTO attempts (partition_id, started_at, finished_at, outcome, http_status, message, size, sha256) "
        "SELECT id, last_attempt_at - 700, last_attempt_at, outcome, 200, coalesce(message, ''), size, sha256 FROM partitions"
    )
    database.execute("INSERT INTO reports SELECT DISTINCT workspace, report, ? FROM partitions", (now,))
    database.execute("INSERT INTO recovered SELECT workspace, report FROM reports")
    database.execute("COMMIT")
    [[partitions]] = database.execute("SELECT count(*) FROM partitions").fetchall()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return partitions


ENVIRONMENT = os.environ | {"BENCH_SECRET": "demo-api-key-of-no-account"}


def command(folder, arguments, runs=RUNS):
    """The median time of a command in seconds, and its peak memory in MiB."""
    times, peak = [], 0
    for _ in range(runs):
        started = time.monotonic()
        done = subprocess.run(
            ["time", "-q", "-f", "%M", "-o", folder / "peak", MOESYNC, "--config", folder / "moesync.toml", *arguments],
            env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        times.append(time.monotonic() - started)
        if done.returncode not in (0, 1):
            sys.exit(f"{arguments} ended with {done.returncode}: {done.stderr}")
        peak = max(peak, int((folder / "peak").read_text().split()[-1]) / 1024)
    return statistics.median(times), peak


def get(port, path):
    """The time and the bytes of an answer, uncompressed; `None` without one."""
    started = time.monotonic()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            length = len(answer.read())
            return time.monotonic() - started, length
    except OSError:
        return None


def daemon(folder, port, found):
    log = open(folder / "run.log", "w")
    started = time.monotonic()
    process = subprocess.Popen(
        [MOESYNC, "--config", folder / "moesync.toml", "run"], env=ENVIRONMENT, stdout=log, stderr=log
    )
    try:
        while get(port, "/readyz") is None:
            if process.poll() is not None or time.monotonic() - started > 120:
                sys.exit(f"the daemon did not become ready; see {folder}/run.log")
            time.sleep(0.01)
        found["ready"] = (time.monotonic() - started, None)
        # Recovery reads beside the loop meanwhile.
        time.sleep(20)

        def ask(name, path):
            times = [get(port, path) for _ in range(RUNS)]
            found[name] = (statistics.median(seconds for seconds, _ in times), times[0][1] / MIB)

        def memory(name, figure):
            status = dict(line.split(":", 1) for line in open(f"/proc/{process.pid}/status"))
            found[name] = (None, int(status[figure].split()[0]) / 1024)

        ask("page", "/")
        ask("readyz", "/readyz")
        times = []
        for _ in range(2):
            times.append(get(port, "/metrics"))
            time.sleep(6)
        found["metrics"] = (statistics.median(seconds for seconds, _ in times), times[0][1] / MIB)
        memory("daemon", "VmRSS")
        ticks = sum(map(int, open(f"/proc/{process.pid}/stat").read().rsplit(")", 1)[1].split()[11:13]))
        time.sleep(20)
        ticks = sum(map(int, open(f"/proc/{process.pid}/stat").read().rsplit(")", 1)[1].split()[11:13])) - ticks
        found["daemon idle, s of cpu a minute"] = (ticks / os.sysconf("SC_CLK_TCK") * 3, None)
        # It prints thirty dates of every report.
        ask("overview API", "/api/v1/overview")
        memory("daemon peak, after the API", "VmHWM")
    finally:
        process.terminate()
        process.wait()


def measure(size):
    folder = FOLDER / size
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    port = free_port()
    reports = REPORTS
    configure(folder, reports, port)
    # The number of reports is the same in both ledgers; only the number of days differs.
    partitions = fill(folder / "moesync.db", reports, DAYS[size])
    found = {}
    found["migrate"] = command(folder, ["sync", "--workspace", "workspace-19", "--report", "report-136"], 1)
    report = ["--workspace", "workspace-07", "--report", "report-042"]
    date = str(datetime.datetime.now(datetime.timezone.utc).date())
    daemon(folder, port, found)
    found["status"] = command(folder, ["status"])
    found["status --report X --json"] = command(folder, ["status", *report, "--json"])
    found["status --check"] = command(folder, ["status", "--check"])
    found["status --all --json"] = command(folder, ["status", "--all", "--json"], 1)
    found["explain"] = command(folder, ["explain", *report, "--date", date])
    found["plan"] = command(folder, ["plan"])
    return partitions, found


def main():
    results = {size: measure(size) for size in DAYS}
    (few, small), (many, large) = results.values()
    print(f"{few:,} and {many:,} partitions of {WORKSPACES * REPORTS:,} reports; times in seconds, memory in MiB")
    print(f"{'':32}{'few':>10}{'many':>10}{'ratio':>8}{'MiB few':>10}{'MiB many':>10}")
    broken = []
    for name, (seconds, mib) in large.items():
        seconds_few, mib_few = small[name]
        ratio = seconds / seconds_few if seconds and seconds_few else None
        cells = [(seconds_few, 10, 3), (seconds, 10, 3), (ratio, 8, 2), (mib_few, 10, 1), (mib, 10, 1)]
        print(f"{name:32}" + "".join(f"{'':{w}}" if v is None else f"{v:{w}.{d}f}" for v, w, d in cells))
        if seconds and seconds > SECONDS_LIMIT.get(name, seconds) or mib and mib > MIB_LIMIT.get(name, mib):
            broken.append(name)
        # Below a twentieth of a second, a ratio is noise.
        if name in RATIO_OF and seconds > 0.05 and ratio > RATIO_LIMIT:
            broken.append(f"{name} (ratio)")
    shutil.rmtree(FOLDER)
    if broken:
        sys.exit(f"limits exceeded: {', '.join(broken)}")


if __name__ == "__main__":
    main()
