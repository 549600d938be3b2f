#!/usr/bin/env python3
"""Writes small archives of every form into fuzz/corpus/, for the fuzz targets to begin with.

Two bytes in front of each choose where the target cuts it.
"""

import gzip
import io
import pathlib
import tarfile
import zipfile

CORPUS = pathlib.Path(__file__).parent / "corpus"
FILES = [("push.csv", b"day,sent\n2026-11-21,7\n"), ("empty.csv", b""), ("f" * 60 + "/" + "e" * 80 + ".csv", b"1\n" * 400)]


class Pipe(io.RawIOBase):
    """A file that cannot seek."""

    def __init__(self):
        self.bytes = b""

    def writable(self):
        return True

    def write(self, data):
        self.bytes += bytes(data)
        return len(data)


def tars():
    for form in [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]:
        for count in [1, len(FILES)]:
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode="w", format=form, pax_headers={"comment": "seed"}) as archive:
                for name, content in FILES[:count]:
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
                for kind in [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]:
                    entry = tarfile.TarInfo("other")
                    entry.type = kind
                    entry.linkname = "push.csv" if count == 1 or form == tarfile.USTAR_FORMAT else "l" * 120
                    archive.addfile(entry)
            # Without the zeros that fill up a record: two blocks are the end.
            yield file.getvalue().rstrip(b"\0") + b"\0" * 1536


def zips():
    for method in [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]:
        for zip64 in [False, True]:
            for file in [io.BytesIO(), Pipe()]:
                with zipfile.ZipFile(file, "w", method) as archive:
                    for name, content in FILES:
                        with archive.open(name, "w", force_zip64=zip64) as entry:
                            entry.write(content)
                yield file.bytes if isinstance(file, Pipe) else file.getvalue()


def gzips():
    yield b"".join(gzip.compress(content, mtime=0) for _, content in FILES)
    file = io.BytesIO()
    with gzip.GzipFile("push.csv", "wb", fileobj=file, mtime=0) as member:
        member.write(FILES[0][1])
    yield file.getvalue()
    for tar in tars():
        yield gzip.compress(tar, mtime=0)
        # Of this target's two halves the second packs it itself.
        yield tar


for target, archives in {"tar": tars(), "zip": zips(), "gzip": gzips()}.items():
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for number, archive in enumerate(archives):
        (folder / f"seed-{number:02}").write_bytes(b"\x40\0" + archive)
