#!/usr/bin/env python3
"""Compares the tables that moesync makes with DuckDB, and a sync with tables with one without, against fixed limits.

One archive of 1.4 GB of CSV in eight entries is stored first; then moesync makes its tables, and DuckDB makes the same
Parquet files of the same CSV, unpacked. 500 small archives are fetched with and without tables. All in turns, in one run;
medians are compared, and the exit code is 1 if a limit is exceeded.

Needs `cargo build --release`, target/engines (`make engines`), GNU time, and 8 GB of disk. Takes minutes, and a quiet
machine.

    benches/tables.py [--rounds N] [NAME...]
"""

import argparse
import datetime
import os
import shutil
import statistics
import subprocess
import sys
import time
import zipfile

from archives import MIB, PLACE, ROOT, ROUNDS, archive, backfill, configure, fresh_folder, moesync, rows, serve

DATE = datetime.date(2024, 1, 1)
CHANNELS = ["PUSH", "EMAIL", "SMS", "WEB_PUSH", "IN_APP", "CARDS", "WHATSAPP", "RCS"]
HEADINGS = b"Campaign Id,Campaign Name,Channel,Sent Date,Variation,Sent,Delivered,Clicks,CTR,Status\n"

# Nothing else is due.
ONCE = f'once = "{DATE}", at = "00:00"'

TIME_LIMIT = 1.5
MEMORY_LIMIT = 256 * MIB
SMALL = 500

DUCKDB = """
import duckdb, pathlib, sys
for file in sorted(pathlib.Path(sys.argv[1]).glob("*.csv")):
    duckdb.sql(f"COPY (FROM read_csv('{file}')) TO '{file.stem}.parquet' (FORMAT parquet, COMPRESSION zstd)")
"""


def make(channels, size):
    """Of whole rows, up to `size` bytes of CSV in equal entries."""

    def write(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for seed, channel in enumerate(channels):
                block, left = rows(seed), size // len(channels)
                info = zipfile.ZipInfo(f"bench_{channel}_{DATE:%Y%m%d}.csv", (2024, 1, 1, 0, 0, 0))
                info.compress_type = zipfile.ZIP_DEFLATED
                with file.open(info, "w") as entry:
                    entry.write(HEADINGS)
                    while left > len(block):
                        left -= entry.write(block)
                    entry.write(block[: block.rindex(b"\n", 0, left) + 1])

    return write


def tables_of(folder):
    return len(list(folder.glob("reports/tables/bench/bench/*/date=*/part-*.parquet")))


def large():
    """The seconds of moesync and of DuckDB for one archive, and moesync's peak memory."""
    path = archive("tables.zip", make(CHANNELS, 1400 * MIB))
    folder = fresh_folder()
    configure(folder, serve(path), schedule=ONCE)
    backfill(folder, 1, "--every-day")
    configure(folder, "http://127.0.0.1:9", schedule=ONCE, tables="parquet")
    seconds, peak = moesync(folder, "sync")
    if tables_of(folder) != len(CHANNELS):
        sys.exit(f"{len(CHANNELS)} tables should have been made, there are {tables_of(folder)}")
    unpacked = fresh_folder()
    with zipfile.ZipFile(path) as file:
        file.extractall(unpacked)
    os.sync()
    started = time.monotonic()
    python = ROOT / "target/engines/bin/python"
    subprocess.run([python, "-c", DUCKDB, "."], cwd=unpacked, check=True, stdin=subprocess.DEVNULL)
    other = time.monotonic() - started
    shutil.rmtree(unpacked)
    return seconds, other, peak


def small():
    """The seconds of 500 small archives with and without tables, and the peak memory."""
    url = serve(archive("tables-small.zip", make(CHANNELS[:4], 225_000)))
    folder = fresh_folder()
    configure(folder, url, schedule=ONCE)
    without, _ = backfill(folder, SMALL, "--every-day")
    folder = fresh_folder()
    configure(folder, url, schedule=ONCE, tables="parquet")
    seconds, peak = backfill(folder, SMALL, "--every-day")
    if tables_of(folder) != SMALL * 4:
        sys.exit(f"{SMALL * 4} objects should have been made, there are {tables_of(folder)}")
    return seconds, without, peak


CONTESTS = {"large": (large, "DuckDB"), "small": (small, "the sync without tables")}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CONTESTS)}; by default all")
    arguments.add_argument("--rounds", type=int, default=3, help="times each contender runs")
    arguments = arguments.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    broken = []
    for name in arguments.names or CONTESTS:
        contest, other = CONTESTS[name]
        if ROUNDS.exists():
            shutil.rmtree(ROUNDS)
        ours, theirs, peaks = zip(*(contest() for _ in range(arguments.rounds)))
        ratio = statistics.median(ours) / statistics.median(theirs)
        times = f"{statistics.median(ours):.2f} s, {other} {statistics.median(theirs):.2f} s, ratio {ratio:.2f}"
        print(f"{name:8}{times}, peak {max(peaks) / MIB:.0f} MiB", flush=True)
        if ratio > TIME_LIMIT:
            broken.append(f"{name}: ratio {ratio:.2f}, limit {TIME_LIMIT}")
        if max(peaks) >= MEMORY_LIMIT:
            broken.append(f"{name}: peak {max(peaks) / MIB:.0f} MiB, limit {MEMORY_LIMIT // MIB} MiB")
    shutil.rmtree(ROUNDS)
    for line in broken:
        print(f"BROKEN {line}")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
