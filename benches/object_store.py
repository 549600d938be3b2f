#!/usr/bin/env python3
"""Measures starts with 2,000 reports and 10,000 objects on an S3 server that takes 30 ms for each request.

An S3 server in this process holds objects and manifests as moesync writes them, and a MoEngage that publishes nothing
counts the requests that reach it. Measured: how soon after a start the first download is requested, with the ledger and
without it, and how long the lost ledger takes to be rebuilt. The exit code is 1 if a limit is exceeded.

Needs `cargo build --release`.
"""

import asyncio
import datetime
import email.utils
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
import time
import urllib.parse
import xml.sax.saxutils

ROOT = pathlib.Path(__file__).resolve().parent.parent
MOESYNC = pathlib.Path(os.environ.get("MOESYNC", ROOT / "target/release/moesync"))
FOLDER = ROOT / "target/bench/object_store"

REPORTS = 2000
# Of each report, the newest dates that are stored; older ones are still to be fetched.
STORED = 5
LATENCY = 0.03
PAGE = 1000
CONTENT = b"PK\x05\x06" + bytes(18)

FIRST_DOWNLOAD_LIMIT = 2
REBUILD_LIMIT = 60


async def serve(handle, latency):
    """An HTTP server: `handle(method, path, query, headers, body)` gives status, headers and body."""

    async def converse(reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lines = head.split("\r\n")
                method, target, _ = lines[0].split(" ")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
                body = await reader.readexactly(int(headers.get("content-length") or 0))
                path, _, query = target.partition("?")
                query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
                status, extra, answer = handle(method, urllib.parse.unquote(path), query, headers, body)
                await asyncio.sleep(latency)
                extra.setdefault("Content-Length", str(len(answer)))
                extra["Date"] = email.utils.formatdate(usegmt=True)
                lines = [f"HTTP/1.1 {status} x", *(f"{name}: {value}" for name, value in extra.items())]
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if method == "HEAD" else answer))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0, limit=1 << 20, backlog=1024)
    return server, server.sockets[0].getsockname()[1]


class Bucket:
    """The part of S3 that moesync uses, without multipart uploads."""

    def __init__(self):
        self.objects = {}
        self.requests = 0

    def answer(self, method, path, query, headers, body):
        self.requests += 1
        key = path.removeprefix("/reports").lstrip("/")
        if method == "GET" and not key:
            return self.list(query)
        if method == "PUT":
            if headers.get("if-none-match") == "*" and key in self.objects:
                return 412, {}, b"<Error><Code>PreconditionFailed</Code></Error>"
            if "x-amz-copy-source" in headers:
                body = self.objects[urllib.parse.unquote(headers["x-amz-copy-source"]).split("/", 2)[-1]]
            self.objects[key] = body
            return 200, self.about(body), b""
        if method == "DELETE":
            self.objects.pop(key, None)
            return 204, {}, b""
        content = self.objects.get(key)
        if content is None:
            return 404, {}, b"<Error><Code>NoSuchKey</Code></Error>"
        about = self.about(content)
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", "")):
            first, last = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
            about["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return 206, about, content[first : last + 1]
        about["Content-Length"] = str(len(content))
        return 200, about, content

    @staticmethod
    def about(content):
        return {"ETag": f'"{hashlib.md5(content).hexdigest()}"', "Last-Modified": email.utils.formatdate(usegmt=True)}

    def list(self, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("continuation-token") or query.get("start-after") or ""
        contents, prefixes, more = [], [], False
        for key in self.sorted_keys():
            if not key.startswith(prefix) or key <= after:
                continue
            if delimiter and delimiter in key[len(prefix) :]:
                folder = prefix + key[len(prefix) :].split(delimiter, 1)[0] + delimiter
                if folder not in prefixes and folder > after:
                    prefixes.append(folder)
                continue
            if len(contents) + len(prefixes) == PAGE:
                more = True
                break
            contents.append(key)
        escape = xml.sax.saxutils.escape
        answer = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;x&quot;</ETag><Size>{len(self.objects[key])}</Size></Contents>"
            for key in contents
        ) + "".join(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in prefixes)
        token = f"<NextContinuationToken>{escape(contents[-1])}</NextContinuationToken>" if more else ""
        answer = (
            f"<ListBucketResult><Name>reports</Name><KeyCount>{len(contents)}</KeyCount><MaxKeys>{PAGE}</MaxKeys>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{answer}</ListBucketResult>"
        )
        return 200, {"Content-Type": "application/xml"}, answer.encode()

    def sorted_keys(self):
        if len(getattr(self, "keys", ())) != len(self.objects):
            self.keys = sorted(self.objects)
        return self.keys


def fill(bucket, dates):
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    for number in range(REPORTS):
        for date in dates:
            name = f"Report_{number:04}_{date:%Y%m%d}.zip"
            folder = f"acme/report-{number:04}/date={date}"
            key = f"{folder}/{name}"
            manifest = {
                "format_version": 1, "workspace": "acme", "report": f"report-{number:04}", "source": "campaign_report",
                "date": str(date), "key": key, "file_name": name, "format": "zip", "size": len(CONTENT),
                "sha256": sha256, "content_type": "application/zip", "entries": [], "records": None, "pages": None,
                "requests": None, "window": None, "generated_at": f"{date}T00:00:00Z", "due_at": f"{date}T00:00:00Z",
                "fetched_at": f"{date}T00:01:00Z", "expires_at": f"{date + datetime.timedelta(days=7)}T00:00:00Z",
                "attempts": 1, "source_url": None, "warnings": [], "moesync_version": "0.1.0",
            }  # fmt: skip
            bucket.objects[key] = CONTENT
            bucket.objects[f"{folder}/_{name}.manifest.json"] = json.dumps(manifest).encode()


def configure(store, vendor, extra):
    parts = [
        f'[ledger]\nurl = "sqlite://{FOLDER}/moesync.db"\n[web]\nlisten = ""\n'
        '[[destinations]]\nname = "bucket"\nurl = "s3://reports"\n'
        f'options = {{ aws_endpoint = "http://127.0.0.1:{store}", aws_region = "us-east-1", aws_allow_http = "true", '
        'aws_access_key_id = "bench", aws_secret_access_key = "bench" }\n'
        f'[[workspaces]]\nname = "acme"\napp_id = "APP"\ntimezone = "UTC"\nbase_url = "http://127.0.0.1:{vendor}"\n'
        'secret_key_env = "BENCH_SECRET"\n'
    ]
    for name in [f"{number:04}" for number in range(REPORTS)] + extra:
        parts.append(
            f'[[reports]]\nworkspace = "acme"\nid = "report-{name}"\nname = "Report {name}"\nbuffer = "0s"\n'
            'source = "campaign_report"\ndestination = "bucket"\nschedule = { every = "day", at = "00:00" }\n'
        )
    (FOLDER / "moesync.toml").write_text("\n".join(parts))


async def run(command, vendor, until):
    """Runs moesync until a line of its log matches; seconds to the first request to MoEngage, and to that line."""
    asked = len(vendor)
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        MOESYNC, "--config", FOLDER / "moesync.toml", "--log-format", "json", *command,
        env=os.environ | {"BENCH_SECRET": "demo-api-key-of-no-account"},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, limit=1 << 22,
    )  # fmt: skip

    async def watch():
        async for line in process.stderr:
            if until and until in line.decode():
                return time.monotonic() - started
        return None

    async def first_request():
        while len(vendor) == asked:
            await asyncio.sleep(0.005)
        return vendor[asked] - started

    try:
        jobs = [first_request()] + ([watch()] if until else [])
        # The log is read to its end, so that the process does not wait for the pipe.
        reading = None if until else asyncio.ensure_future(watch())
        found = await asyncio.wait_for(asyncio.gather(*jobs), 300)
        if reading:
            reading.cancel()
        return found
    finally:
        process.kill()
        await process.wait()


async def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    bucket, asked = Bucket(), []
    today = datetime.datetime.now(datetime.timezone.utc).date()
    fill(bucket, [today - datetime.timedelta(days=back) for back in range(STORED)])

    def moengage(*_):
        asked.append(time.monotonic())
        body = json.dumps({"error": {"attribute": "", "message": "not generated", "type": "BAD REQUEST", "request_id": ""}})
        return 400, {"Content-Type": "application/json"}, body.encode()

    store, store_port = await serve(bucket.answer, LATENCY)
    vendor, vendor_port = await serve(moengage, 0)
    configure(store_port, vendor_port, [])
    adopted = "stored objects that were not in the ledger"
    first_without, rebuilt = await run(["run"], asked, adopted)
    rebuild_requests = bucket.requests
    # A report that is new has something to fetch at each start.
    figures = {}
    for command in (["run"], ["sync"]):
        configure(store_port, vendor_port, [f"new-{command[0]}"])
        [figures[command[0]]] = await run(command, asked, None)
    objects = REPORTS * STORED
    print(f"{REPORTS:,} reports, {objects:,} objects, {LATENCY * 1000:.0f} ms a request; seconds")
    print(f"first download after a start, `run`:            {figures['run']:6.2f}")
    print(f"first download after a start, `sync`:           {figures['sync']:6.2f}")
    print(f"first download after the ledger was lost:       {first_without:6.2f}")
    print(f"the lost ledger is rebuilt:                     {rebuilt:6.2f}  ({rebuild_requests:,} requests)")
    broken = [name for name, seconds in figures.items() if seconds > FIRST_DOWNLOAD_LIMIT]
    if rebuilt > REBUILD_LIMIT:
        broken.append("rebuild")
    shutil.rmtree(FOLDER)
    if broken:
        sys.exit(f"limits exceeded: {', '.join(broken)}")


if __name__ == "__main__":
    asyncio.run(main())
