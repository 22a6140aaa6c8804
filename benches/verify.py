#!/usr/bin/env python3
"""How fast `s3dedup verify --deep` reads, beside the backend read raw.

Fills a folder store through the server, then reads all objects with plain reads and with verify, in turns, cold (the
kernel's cache emptied, if that is allowed) or warm, and prints the ratio of the best of each.

    benches/verify.py --binary target/release/s3dedup [--megabytes 2000] [--size 1000000] [--rounds 3] [--text]
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fill(binary, environment, contents, size, text):
    port = free_port()
    server = subprocess.Popen(
        [binary], env={**environment, "LISTEN_PORT": str(port), "LISTEN_ADDRESS": "127.0.0.1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/ft"
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(url + "/version").read()
                break
            except OSError:
                time.sleep(0.05)

        def put(number):
            noise = random.Random(number)
            if text:
                words = [b"%d " % noise.randrange(10**6) for _ in range(size // 7)]
                body = b"".join(words)
            else:
                body = noise.randbytes(size)
            target = f"{url}/files/f{number}?last_modified=Sat,+01+Jan+2022+00:00:00+GMT"
            urllib.request.urlopen(urllib.request.Request(target, data=body, method="PUT")).read()

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(put, range(contents)))
    finally:
        server.terminate()
        server.wait()


def objects(data):
    return [path for path in (data / "blobs").rglob("*") if path.is_file() and path.suffix != ".json"]


def is_emptied():
    """Empties the kernel's cache; false when that is not allowed."""
    os.sync()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
        return True
    except OSError:
        return False


def raw(paths):
    def read(path):
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass

    begun = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(read, paths))
    return time.perf_counter() - begun


def verify(binary, environment, deep):
    arguments = [binary, "verify", "--json"] + (["--deep"] if deep else [])
    begun = time.perf_counter()
    report = subprocess.run(arguments, env=environment, check=True, capture_output=True).stdout
    seconds = time.perf_counter() - begun
    assert json.loads(report)["status"] == "whole"
    return seconds


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--binary", required=True)
    options.add_argument("--megabytes", type=int, default=2000)
    options.add_argument("--size", type=int, default=1_000_000, help="bytes of each content")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--text", action="store_true", help="contents that compress, about 2:1")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = pathlib.Path(folder) / "data"
        environment = {"DATA_DIR": str(data), "STORAGE_TYPE": "filesystem", "LOG_LEVEL": "error"}
        fill(given.binary, environment, given.megabytes * 1_000_000 // given.size, given.size, given.text)
        paths = objects(data)
        total = sum(path.stat().st_size for path in paths) / 1e6
        print(f"{len(paths)} objects, {total:.0f} MB, {os.cpu_count()} processors")
        for cache in ["cold", "warm"]:
            times = {"raw": [], "deep": [], "shallow": []}
            for _ in range(given.rounds):
                for kind in times:
                    if cache == "cold" and not is_emptied():
                        print("the cache cannot be emptied here: no cold figures")
                        break
                    read = {"raw": lambda: raw(paths)}.get(
                        kind, lambda kind=kind: verify(given.binary, environment, kind == "deep"))
                    times[kind].append(read())
            if not times["shallow"]:
                continue
            best = {kind: min(seconds) for kind, seconds in times.items()}
            print(f"{cache}: raw {total / best['raw']:.0f} MB/s, verify --deep {total / best['deep']:.0f} MB/s, "
                  f"ratio {best['raw'] / best['deep']:.2f}; verify {best['shallow']:.2f} s")


if __name__ == "__main__":
    sys.exit(main())
