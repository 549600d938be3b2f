#!/usr/bin/env python3
"""Inflates every entry of a zip archive with isa-l, on one thread, and prints nothing.

    target/isal/bin/python benches/inflate.py ARCHIVE
"""

import struct
import sys
import zipfile

from isal import isal_zlib

BLOCK = 256 * 1024

with zipfile.ZipFile(sys.argv[1]) as archive, open(sys.argv[1], "rb") as file:
    for entry in archive.infolist():
        file.seek(entry.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
        file.seek(name + extra, 1)
        inflate = isal_zlib.decompressobj(wbits=-15)
        left, inflated = entry.compress_size, 0
        while left > 0:
            block = file.read(min(BLOCK, left))
            left -= len(block)
            inflated += len(inflate.decompress(block))
        if inflated + len(inflate.flush()) != entry.file_size or not inflate.eof:
            sys.exit(f"{entry.filename} does not have its size")
