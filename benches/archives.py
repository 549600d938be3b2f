#!/usr/bin/env python3
"""Compares the speed and memory of moesync with curl and unzip, rclone, and isa-l, against fixed limits.

Archives are fetched by `moesync` and by another program from one server, in turns, in one run; medians are compared, and
the exit code is 1 if a limit is exceeded. moesync runs with its default configuration, so it syncs its files to disk;
curl does not; after rclone, the file system is synced. isa-l only inflates, on one thread, what is on disk already. The
archives are generated once, with the same bytes everywhere, below target/bench.

Needs `cargo build --release`, curl, unzip, xargs, rclone, GNU time, Python's isal in target/isal, and 8 GB of disk. Takes
minutes, and a quiet machine.

    benches/archives.py [--rounds N] [NAME...]
"""

import argparse
import datetime
import gzip
import os
import pathlib
import random
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MOESYNC = pathlib.Path(os.environ.get("MOESYNC", ROOT / "target/release/moesync"))
PLACE = ROOT / "target/bench"
ROUNDS = PLACE / "rounds"
MIB = 1024 * 1024

# In bytes, for any download.
MEMORY_LIMIT = 64 * MIB

ONE = "curl -sSf -o archive $URL/archive && unzip -tqq archive"
ONE_GZIP = "curl -sSf -o archive $URL/archive && gzip -t < archive"
# Each of the eight tests its own archives: faster than a loop over all at the end.
EIGHT = "seq 500 | xargs -P8 -I{} sh -c 'curl -sSf -o {}.zip $URL/{}.zip && unzip -tqq {}.zip'"
RCLONE = "rclone copy --config '' --transfers 32 --http-url $URL/ :http: copies && sync -f copies"
ISAL = f"{ROOT}/target/isal/bin/python {ROOT}/benches/inflate.py $ARCHIVE"


def rows(seed):
    """Some MiB of rows as campaign reports have them: names repeat, numbers and ids do not. They deflate to 30 %."""
    chance = random.Random(seed)
    lines = []
    for _ in range(100_000):
        sent = chance.randrange(200_000)
        delivered = sent - chance.randrange(1 + sent // 10)
        clicked = chance.randrange(1 + delivered // 8)
        lines.append(
            f"{chance.randrange(1 << 64):016x},Campaign {chance.randrange(400)} of the season,push,"
            f"2026-11-{1 + chance.randrange(28):02},Variation {1 + chance.randrange(3)},{sent},{delivered},{clicked},"
            f"{clicked / (1 + delivered):.6f},Sent\n"
        )
    return "".join(lines).encode()


def write_rows(to, block, size):
    """Writes `size` bytes of repeated `block`, which is longer than the window of deflate."""
    while size > 0:
        to.write(block[:size])
        size -= len(block)


def make_zip(method, size, entries=4):
    def make(path):
        with zipfile.ZipFile(path, "w", method) as archive:
            for number in range(entries):
                entry = zipfile.ZipInfo(f"channel_{number}.csv", (2026, 11, 21, 9, 30, 0))
                entry.compress_type = method
                with archive.open(entry, "w") as file:
                    write_rows(file, rows(number % 4), size // entries)

    return make


def make_gzip(size):
    def make(path):
        with gzip.GzipFile(path, "wb", compresslevel=6, mtime=0) as file:
            write_rows(file, rows(0), size)

    return make


def make_bomb(entries):
    def make(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(entries):
                archive.writestr(zipfile.ZipInfo(f"{number}.csv"), b"")

    return make


# name: archive, its generator, number of fetches, concurrency, the other command, the limit as a part of its time,
# expected exit code of moesync
CONTESTS = {
    "large": ("deflated.zip", make_zip(zipfile.ZIP_DEFLATED, 1700 * MIB), 1, 4, ONE, 1 / 2, 0),
    "small": ("small.zip", make_zip(zipfile.ZIP_DEFLATED, 225_000), 500, 4, EIGHT, 1 / 3, 0),
    "rclone": ("small.zip", make_zip(zipfile.ZIP_DEFLATED, 225_000), 500, 4, RCLONE, 2.5, 0),
    # The size of each entry is known before its content.
    "inflate": ("many.zip", make_zip(zipfile.ZIP_DEFLATED, 1700 * MIB, 46), 1, 4, ISAL, 1.25, 0),
    # For information, and for memory.
    "stored": ("stored.zip", make_zip(zipfile.ZIP_STORED, 512 * MIB), 1, 4, ONE, None, 0),
    "gzip": ("deflated.csv.gz", make_gzip(1700 * MIB), 1, 4, ONE_GZIP, None, 0),
    "sixteen": ("medium.zip", make_zip(zipfile.ZIP_DEFLATED, 332 * MIB), 16, 16, None, None, 0),
    "entries": ("entries.zip", make_bomb(100_000), 1, 4, None, None, 0),
    "bomb": ("bomb.zip", make_bomb(1_000_000), 1, 4, None, None, 1),
}


def archive(name, make):
    """The archive called `name`; made by a process of its own, so that this one stays small: the peak memory that the
    system reports of a process is at least that of the one that started it."""
    path = PLACE / name
    if not path.exists():
        print(f"making {name}", flush=True)
        maker = os.fork()
        if maker == 0:
            make(PLACE / "unfinished")
            os._exit(0)
        if os.waitpid(maker, 0)[1] != 0:
            sys.exit(f"could not make {name}")
        (PLACE / "unfinished").rename(path)
    return path


PAGE = "".join(f'<a href="{number}.zip">{number}.zip</a>\n' for number in range(500)).encode()
LISTING = f"HTTP/1.1 200 OK\r\nContent-Length: {len(PAGE)}\r\nContent-Type: text/html\r\n\r\n".encode() + PAGE


def serve(path):
    """Serves the file under every name, and under those of folders a page of 500 links; returns the base URL."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def answer(connection):
        with connection, path.open("rb") as file:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            length = path.stat().st_size
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nContent-Type: application/gzip\r\n\r\n".encode()
            pending = b""
            try:
                while received := connection.recv(65536):
                    pending += received
                    while b"\r\n\r\n" in pending:
                        request, pending = pending.split(b"\r\n\r\n", 1)
                        method, target = request.split(b" ", 2)[:2]
                        if target.endswith(b"/"):
                            connection.sendall(LISTING)
                            continue
                        connection.sendall(head)
                        if method == b"GET":
                            connection.sendfile(file, 0)
            except ConnectionError:
                # The client closed the connection; its exit code is checked.
                pass

    def accept():
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def fresh_folder():
    """A new folder for each round, after all pending writes. Earlier folders are kept until the end of the contest, because
    ext4 creates files slowly for a while after many were deleted."""
    ROUNDS.mkdir(exist_ok=True)
    folder = ROUNDS / str(len(list(ROUNDS.iterdir())))
    folder.mkdir()
    os.sync()
    return folder


def seconds_of_shell(line, url, path):
    folder = fresh_folder()
    started = time.monotonic()
    environment = os.environ | {"URL": url, "ARCHIVE": str(path)}
    subprocess.run(line, shell=True, check=True, cwd=folder, env=environment, stdin=subprocess.DEVNULL)
    return time.monotonic() - started


def configure(folder, url, limits="", schedule='every = "day", at = "00:00"', tables="none"):
    """Writes a configuration of one report, which `url` serves."""
    (folder / "moesync.toml").write_text(
        f"""{limits}
[ledger]
url = "sqlite://{folder}/moesync.db"

[[workspaces]]
name = "bench"
app_id = "BENCH"
base_url = "{url}"
timezone = "UTC"
secret_key_env = "BENCH_SECRET"

[[destinations]]
name = "here"
url = "file://{folder}/reports"

[[reports]]
workspace = "bench"
source = "campaign_report"
name = "bench"
destination = "here"
schedule = {{ {schedule} }}
tables = "{tables}"
"""
    )


def moesync(folder, *arguments, expected=0):
    """The seconds that a command takes, and its peak memory in bytes."""
    command = ["time", "-q", "-f", "%M", "-o", "peak", MOESYNC, "--config", "moesync.toml", *arguments]
    started = time.monotonic()
    environment = os.environ | {"BENCH_SECRET": "s"}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    elapsed = time.monotonic() - started
    if done.returncode != expected:
        sys.exit(f"moesync {arguments[0]} ended with {done.returncode}, not {expected}\n{done.stdout}{done.stderr}")
    return elapsed, int((folder / "peak").read_text()) * 1024


def backfill(folder, count, *arguments, expected=0):
    first = datetime.date(2024, 1, 1)
    dates = ["--from", str(first), "--to", str(first + datetime.timedelta(days=count - 1))]
    return moesync(folder, "backfill", "--report", "bench", *dates, "--ask-anyway", *arguments, expected=expected)


def seconds_and_peak_of_moesync(url, path, count, concurrency, expected):
    folder = fresh_folder()
    configure(folder, url, "" if concurrency == 4 else f"[limits]\nconcurrency_per_workspace = {concurrency}\n")
    elapsed, peak = backfill(folder, count, expected=expected)
    stored = list(folder.glob("reports/bench/bench/date=*/bench_*.zip"))
    if expected == 0 and [file.stat().st_size for file in stored] != [path.stat().st_size] * count:
        sys.exit(f"{count} objects should have been stored, there are {len(stored)}")
    return elapsed, peak


def compete(name, rounds):
    """Prints how a contest went; returns the exceeded limits."""
    file, make, count, concurrency, other, limit, expected = CONTESTS[name]
    path = archive(file, make)
    url = serve(path)
    ours, theirs, peak = [], [], 0
    if ROUNDS.exists():
        shutil.rmtree(ROUNDS)
    for _ in range(rounds):
        if other:
            theirs.append(seconds_of_shell(other, f"{url}/campaign_reports/rest_api/BENCH", path))
        elapsed, memory = seconds_and_peak_of_moesync(url, path, count, concurrency, expected)
        ours.append(elapsed)
        peak = max(peak, memory)
    each = ", ".join(f"{elapsed:.2f}" for elapsed in ours)
    line = f"{name:8} {count} x {path.stat().st_size:,} bytes: {statistics.median(ours):.2f} s ({each})"
    broken = []
    if other:
        ratio = statistics.median(ours) / statistics.median(theirs)
        each = ", ".join(f"{elapsed:.2f}" for elapsed in theirs)
        line += f", others {statistics.median(theirs):.2f} s ({each}), ratio {ratio:.2f}"
        if limit and ratio > limit:
            broken.append(f"{name}: ratio {ratio:.2f}, limit {limit:.2f}")
    print(f"{line}, peak {peak / MIB:.1f} MiB", flush=True)
    if peak >= MEMORY_LIMIT:
        broken.append(f"{name}: peak {peak / MIB:.1f} MiB, limit {MEMORY_LIMIT // MIB} MiB")
    return broken


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CONTESTS)}; by default all")
    arguments.add_argument("--rounds", type=int, default=3, help="times each contender runs")
    arguments = arguments.parse_args()
    if unknown := set(arguments.names) - set(CONTESTS):
        sys.exit(f"there is no {', '.join(unknown)}; there are {', '.join(CONTESTS)}")
    if missing := [tool for tool in ["curl", "unzip", "xargs", "rclone", "time", ROOT / "target/isal", MOESYNC] if not shutil.which(tool) and not (isinstance(tool, pathlib.Path) and tool.exists())]:
        sys.exit(f"missing: {', '.join(map(str, missing))}")
    PLACE.mkdir(parents=True, exist_ok=True)
    print(f"load before: {os.getloadavg()[0]:.1f}")
    broken = [line for name in arguments.names or CONTESTS for line in compete(name, arguments.rounds)]
    print(f"load after: {os.getloadavg()[0]:.1f}")
    for line in broken:
        print(f"BROKEN {line}")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
