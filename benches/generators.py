"""The load: wrk for small requests, plain sockets for bursts, curl processes for large files. Each returns a Sample."""

import json
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from protocols import HOST

CLIENTS = 16
SCRIPT = Path(__file__).with_name("wrk.lua")
TIMEOUT_SECONDS = 60
TRANSFER_SECONDS_MAX = 900


class LoadError(Exception):
    """A load generator that did not do its work."""


@dataclass
class Sample:
    """One timed run: a rate (requests/s or MiB/s), latencies, memory of the server, and what went wrong."""

    rate: float
    p50_ms: float
    p99_ms: float
    peak_mib: float = 0.0
    failures: list = field(default_factory=list)


def small_requests(server, file, mode, seconds, clients=CLIENTS):
    """Sends the requests of a file with wrk for some seconds: `once` (may end earlier) or in a `loop`."""
    command = [
        "wrk", "-t1", f"-c{clients}", f"-d{seconds}s", f"--timeout={TIMEOUT_SECONDS}s",
        "-s", str(SCRIPT), server.url, "--", str(file), mode,
    ]
    outcome = subprocess.run(command, capture_output=True, text=True)
    lines = outcome.stdout.splitlines()
    if outcome.returncode != 0 or not lines or not lines[-1].startswith("{"):
        raise LoadError(f"wrk failed on {server.name}: {outcome.stderr.strip() or outcome.stdout.strip()}")
    seen = json.loads(lines[-1])
    failures = [f"{seen[kind]} requests {kind}" for kind in ("refused", "broken") if seen[kind]]
    if not seen["requests"]:
        failures.append("no request was answered")
    return Sample(seen["requests"] / seen["seconds"], seen["p50_ms"], seen["p99_ms"], failures=failures)


def bursts(server, groups, seconds):
    """Sends each group of requests at once, one connection per request, and waits for all the answers."""
    latencies, failures, busy = [], [], 0.0
    for group in groups:
        sockets = [socket.create_connection(("127.0.0.1", server.port), TIMEOUT_SECONDS) for _ in group]
        try:
            start = time.perf_counter()
            for connection, request in zip(sockets, group):
                connection.sendall(request)
            for connection in sockets:
                status = _read_answer(connection)
                latencies.append((time.perf_counter() - start) * 1e3)
                if not 200 <= status < 300:
                    failures.append(f"status {status}")
            busy += time.perf_counter() - start
        finally:
            for connection in sockets:
                connection.close()
        if busy > seconds:
            break
    return _sample(len(latencies) / busy, latencies, failures)


def large_puts(server, names, contents):
    """Stores one large file per client, all at once."""
    jobs = []
    for name, content in zip(names, contents):
        headers = [f"{key}: {value}" for key, value in server.protocol.put_headers(content).items()]
        jobs.append((server.protocol.put_target(name), headers, ["--upload-file", str(content.body)], None))
    return _transfer(server, jobs, contents[0].size)


def large_gets(server, names, contents):
    """Reads one large file per client, all at once; every file must arrive whole."""
    jobs = []
    for name, content in zip(names, contents):
        headers = [f"{key}: {value}" for key, value in server.protocol.get_headers().items()]
        jobs.append((server.protocol.get_target(name), headers, [], content.body.stat().st_size))
    return _transfer(server, jobs, contents[0].size)


def download(server, target, file):
    """Reads one answer into a file; returns seconds to the first byte, seconds in all."""
    command = _curl(server, target, [], file, "%{http_code} %{time_starttransfer} %{time_total}")
    outcome = subprocess.run(command, capture_output=True, text=True)
    status, first, total = (outcome.stdout.split() + ["?"] * 3)[:3]
    if outcome.returncode != 0 or status != "200":
        raise LoadError(f"{server.name} answered {status} to {target}: {outcome.stderr.strip()}")
    return float(first), float(total)


def _transfer(server, jobs, size):
    """Runs one curl per job at once. A job: target, headers, further arguments, expected length of the answer."""
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        running = []
        try:
            for target, headers, arguments, _ in jobs:
                command = _curl(server, target, headers, "/dev/null", "%{http_code} %{size_download} %{time_total}")
                running.append(subprocess.Popen(command + arguments, stdout=subprocess.PIPE, stderr=errors, text=True))
            answers = [process.communicate()[0] for process in running]
        finally:
            for process in running:
                process.kill()
                process.wait()
        elapsed = time.perf_counter() - start
        errors.seek(0)
        failures = errors.read().splitlines()
    latencies = []
    for answer, (*_, expected) in zip(answers, jobs):
        status, received, seconds = answer.split()
        latencies.append(float(seconds) * 1e3)
        if not status.startswith("2"):
            failures.append(f"status {status}")
        elif expected is not None and int(received) != expected:
            failures.append(f"{received} bytes instead of {expected}")
    return _sample(len(jobs) * size / 2**20 / elapsed, latencies, failures)


def _curl(server, target, headers, output, report):
    command = ["curl", "--silent", "--show-error", "--max-time", str(TRANSFER_SECONDS_MAX), "--output", str(output)]
    # Like the real client: no question before a large body is sent.
    for header in [f"Host: {HOST}", "Expect:", *headers]:
        command += ["--header", header]
    return [*command, "--write-out", report, server.url + target]


def _read_answer(connection):
    """Reads one HTTP answer to its end and returns its status."""
    answer = b""
    while not _is_whole(answer):
        piece = connection.recv(65536)
        if not piece:
            raise LoadError("a server closed the connection before its answer ended")
        answer += piece
    return int(answer.split(None, 2)[1])


def _is_whole(answer):
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    head = head.lower()
    if b"transfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    length = head.partition(b"content-length:")[2].split(b"\r\n")[0]
    return len(body) >= int(length or 0)


def _sample(rate, latencies, failures):
    ordered = sorted(latencies)
    return Sample(rate, _percentile(ordered, 50), _percentile(ordered, 99), failures=failures)


def _percentile(ordered, percent):
    """Nearest rank; of 16 values the 99th percentile is the largest."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
