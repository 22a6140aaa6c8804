"""How fast `s3dedup verify --deep` reads, beside the same objects read from the backend raw, in turns.

Raw: plain reads of the folder's files by as many threads, or one curl that gets the objects from the S3 server in
parallel. Verify reads as much, decodes it and computes BLAKE3 of the stored and SHA-256 of the decoded bytes.
"""

import concurrent.futures
import hashlib
import http.client
import json
import os
import random
import statistics
import subprocess
import time
from pathlib import Path

from generators import CLIENTS, LoadError
from protocols import HOST
from report import Row
from servers import Ours

OBJECT_BYTES = 1_000_000
TARGET = 0.8
FOLDER, S3 = "ours-folder", "ours-s3"


def run(options, work, scale, results):
    """Measures each chosen store; returns the rows."""
    megabytes = 400 if options.quick else 2000
    rows = []
    for store in (FOLDER, S3):
        if store not in options.servers:
            continue
        for kind in ("noise", "text"):
            with results.attempt(f"verify of {kind} on {store}"):
                garage = options.garage if store == S3 else None
                with Ours(work / f"verify-{store}-{kind}", options.binary, garage) as server:
                    rows += _measure(server, kind, megabytes if kind == "noise" else megabytes // 4, scale, results)
    return rows


def _measure(server, kind, megabytes, scale, results):
    keys = _fill(server, kind, megabytes * 1_000_000 // OBJECT_BYTES)
    rows = []
    for cache in ("cold", "warm"):
        times = {"raw": [], "deep": []}
        stored = 0
        for _ in range(scale.rounds):
            for what, seconds in times.items():
                if cache == "cold" and not _is_emptied():
                    results.progress("the kernel's cache cannot be emptied here: no cold figures")
                    break
                begun = time.perf_counter()
                if what == "raw":
                    _raw_s3(server, keys) if server.garage else _raw_folder(server, keys)
                    seconds.append(time.perf_counter() - begun)
                else:
                    took, stored = _verify(server)
                    seconds.append(took)
        if not times["deep"]:
            continue
        rates = {what: [stored / 1e6 / seconds for seconds in taken] for what, taken in times.items()}
        ratio = statistics.median(deep / raw for deep, raw in zip(rates["deep"], rates["raw"]))
        workload, raw = f"verify-{kind}-{cache}", f"raw {server.store}"
        rows.append(Row(workload, raw, statistics.median(rates["raw"]), "MB/s", rates=rates["raw"]))
        row = Row(workload, server.name, statistics.median(rates["deep"]), "MB/s", rates=rates["deep"],
                  baseline=raw, ratio=ratio)
        row.target, row.reached = f">= {TARGET}x", ratio >= TARGET
        rows.append(row)
        results.progress(f"{workload:20} {server.name:16} {row.value:7.0f} MB/s, {raw} {rows[-2].value:7.0f}, "
                         f"ratio {ratio:.2f}")
    return rows


def _fill(server, kind, count):
    """Stores contents; returns the names of their objects."""

    def put(number):
        noise = random.Random(number)
        if kind == "text":
            content = b"".join(b"%d " % noise.randrange(10**6) for _ in range(OBJECT_BYTES // 7))
        else:
            content = noise.randbytes(OBJECT_BYTES)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        try:
            connection.request("PUT", server.protocol.put_target(f"v/{number}"), content, {"Host": HOST})
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise LoadError(f"{server.name} answered {answer.status} to a PUT")
        digest = hashlib.sha256(content).hexdigest()
        return f"{digest[:2]}/{digest[2:4]}/{digest}"

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(put, range(count)))


def _is_emptied():
    """Empties the kernel's cache; false when that is not allowed."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
        return True
    except OSError:
        return False


def _raw_folder(server, keys):
    def read(key):
        with open(server.home / "data/blobs" / key, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(read, keys))


def _raw_s3(server, keys):
    garage = server.garage
    lines = [f'url = "{garage.url}{garage.protocol.get_target(key)}"\noutput = "/dev/null"' for key in keys]
    command = ["curl", "--silent", "--show-error", "--fail", "--parallel", "--parallel-max", str(CLIENTS),
               "--header", f"Host: {HOST}", "--config", "-"]
    outcome = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True)
    if outcome.returncode != 0:
        raise LoadError(f"curl failed on {garage.name}: {outcome.stderr.strip()[-300:]}")


def _verify(server):
    """Seconds that it took, and bytes that it read."""
    environment = os.environ | server.environment() | {"LOG_LEVEL": "error"}
    begun = time.perf_counter()
    outcome = subprocess.run([str(server.binary), "verify", "--deep", "--json"], env=environment, capture_output=True)
    seconds = time.perf_counter() - begun
    report = json.loads(outcome.stdout or "{}")
    if report.get("status") != "whole":
        raise LoadError(f"verify said {outcome.stdout[-300:]} {outcome.stderr[-300:]}")
    return seconds, report["stored_bytes"]

