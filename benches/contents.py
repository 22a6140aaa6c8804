"""Contents as clients send them (gzip, with digest and size), small ones in memory and large ones in files; and
files of prebuilt requests for wrk.lua. Everything is made before a clock runs.
"""

import gzip
import hashlib
import itertools
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from protocols import HOST

SMALL_BYTES = 4096
UNIQUE_BYTES = 65536


@dataclass(frozen=True)
class Content:
    """A gzip body (bytes, or the path of a file) with what a client says about the plain bytes."""

    body: bytes | Path
    digest: str
    size: int


def small(count, size=SMALL_BYTES):
    """Distinct incompressible contents."""
    for _ in range(count):
        plain = os.urandom(size)
        yield Content(gzip.compress(plain, 6, mtime=0), hashlib.sha256(plain).hexdigest(), size)


class LargeContents:
    """Distinct incompressible contents of one size, as gzip files in a directory.

    They share all but their first 64 KiB: the shared part is drawn and deflated once and follows each unique part
    as further blocks of the same gzip member, so that making one costs little more than hashing and writing it.
    """

    def __init__(self, directory, size):
        self.directory = Path(directory)
        self.directory.mkdir()
        self.size = size
        self.shared = os.urandom(size - UNIQUE_BYTES)
        packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        self.packed = packer.compress(self.shared) + packer.flush()

    def make(self, count):
        """Replaces the directory's files by `count` new contents."""
        return [self._make(self.directory / str(number)) for number in range(count)]

    def _make(self, path):
        unique = os.urandom(UNIQUE_BYTES)
        packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        packed = packer.compress(unique) + packer.flush(zlib.Z_FULL_FLUSH)
        digest = hashlib.sha256(unique)
        digest.update(self.shared)
        checksum = zlib.crc32(self.shared, zlib.crc32(unique))
        with open(path, "wb") as file:
            file.write(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
            file.write(packed)
            file.write(self.packed)
            file.write(struct.pack("<II", checksum, self.size & 0xFFFFFFFF))
            file.flush()
            os.fsync(file.fileno())
        return Content(path, digest.hexdigest(), self.size)


def put_request(protocol, name, content):
    """A whole HTTP request that stores a small content."""
    return _request("PUT", protocol.put_target(name), protocol.put_headers(content), content.body)


def get_request(protocol, name, close=False):
    """A whole HTTP request that reads a file, over a kept connection or one of its own."""
    headers = protocol.get_headers()
    return _request("GET", protocol.get_target(name), headers | {"Connection": "close"} if close else headers)


def write_requests(path, requests):
    """Writes requests in the form wrk.lua reads."""
    with open(path, "wb") as file:
        for request in requests:
            file.write(b"%d\n%s" % (len(request), request))
    return path


def puts_of_new(protocol, names, contents):
    """One PUT per content."""
    return (put_request(protocol, name, content) for name, content in zip(names, contents))


def puts_of_known(protocol, names, contents):
    """PUTs of contents that are stored already, in turn."""
    return (put_request(protocol, name, content) for name, content in zip(names, itertools.cycle(contents)))


def _request(method, target, headers, body=b""):
    lines = [f"{method} {target} HTTP/1.1", f"Host: {HOST}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if method == "PUT":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body
