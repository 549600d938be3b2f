#!/usr/bin/env python3
"""Measures the memory of a snapshot of a hundred thousand campaigns of 30 kB each.

They come from `moesync emulate`, page by page, and are stored as one object. The exit code is 1 if the limit is exceeded.

Needs `cargo build --release`, GNU time, and 4 GB of disk below target/bench. Takes 70 minutes: the pages
are requested at MoEngage's rate limit.
"""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MOESYNC = ROOT / "target/release/moesync"
FOLDER = ROOT / "target/bench/snapshot"
MIB = 1024 * 1024

CAMPAIGNS = 100_000
CAMPAIGN_BYTES = 30_000
MEMORY_LIMIT = 64 * MIB


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port):
    for _ in range(100):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    sys.exit("the MoEngage emulator did not start listening")


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    port = free_port()
    (FOLDER / "moesync.toml").write_text(
        f"""
[ledger]
url = "sqlite://{FOLDER}/moesync.db"

[web]
listen = ""

[[workspaces]]
name = "bench"
app_id = "DEMO-APP-ID"
base_url = "http://127.0.0.1:{port}"
timezone = "UTC"
secret_key_env = "BENCH_SECRET"

[[destinations]]
name = "here"
url = "file://{FOLDER}/reports"

[[reports]]
source = "campaigns"
destination = "here"
schedule = {{ every = "day", at = "00:00" }}
buffer = "0s"
"""
    )
    emulate = [MOESYNC, "emulate", "--listen", f"127.0.0.1:{port}"]
    emulate += ["--campaigns", str(CAMPAIGNS), "--campaign-bytes", str(CAMPAIGN_BYTES)]
    vendor = subprocess.Popen(emulate, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        command = ["time", "-q", "-f", "%M", "-o", FOLDER / "peak", MOESYNC]
        command += ["--config", FOLDER / "moesync.toml", "sync"]
        started = time.monotonic()
        environment = os.environ | {"BENCH_SECRET": "demo-api-key-of-no-account"}
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        elapsed = time.monotonic() - started
    finally:
        vendor.kill()
        vendor.wait()
    if done.returncode != 0:
        sys.exit(f"moesync ended with {done.returncode}\n{done.stdout}{done.stderr}")
    [manifest] = FOLDER.glob("reports/bench/campaigns/date=*/_*.manifest.json")
    manifest = json.loads(manifest.read_text())
    peak = int((FOLDER / "peak").read_text()) * 1024
    print(
        f"snapshot {manifest['records']:,} campaigns of {manifest['entries'][0]['size'] // CAMPAIGNS:,} bytes: "
        f"{elapsed:.0f} s, {manifest['requests']:,} requests, peak {peak / MIB:.1f} MiB"
    )
    shutil.rmtree(FOLDER)
    if manifest["records"] != CAMPAIGNS or peak > MEMORY_LIMIT:
        sys.exit("a limit is exceeded")


if __name__ == "__main__":
    main()
