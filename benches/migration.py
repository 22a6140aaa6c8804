"""Migration from an old server: small files beside the old tool, large ones beside plain downloads, and a walk through a
large tree of version 1."""

import concurrent.futures
import gzip
import hashlib
import http.client
import os
import shutil
import signal
import statistics
import subprocess
import time
from pathlib import Path

from servers import OldServer, ServerError

SMALL_BYTES = 4096
CONCURRENCY = 10
WALK_GROWTH_MAX_MIB = 32
COMMAND_SECONDS_MAX = 3600
VERSION = 1_600_000_000
LAST_MODIFIED = "Sun%2C+13+Sep+2020+12%3A26%3A40+-0000"

TITLES = {
    "migrate-small": "migrate 4 KiB files",
    "migrate-v1": "migrate 4 KiB files of v1",
    "migrate-large": "migrate large files",
    "walk-rate": "v1 files listed",
    "walk-growth": "v1 listing, memory growth",
}


def run(options, work, scale, results):
    """All figures by (workload, who), each a list of one number a round."""
    figures = {}

    def note(workload, who, value):
        figures.setdefault((workload, who), []).append(value)
        results.progress(f"{workload:15} {who:20} {value:10.1f}")

    quick = scale.rounds < 3
    for number in range(scale.rounds):
        with results.attempt("migration of small files"):
            small(options, work / f"migrate-small-{number}", 1500 if quick else 4000, note)
    for number in range(scale.large_rounds):
        with results.attempt("migration of large files"):
            large(options, work / f"migrate-large-{number}", scale.large_bytes, note)
    with results.attempt("walk"):
        walk(options, work / "walk", 100_000 if quick else 1_000_000, note)
    return figures


def small(options, home, files, note):
    """The old tool fills the old server from a tree; ours copies from that server, and from the tree."""
    tree = home / "v1"
    for number in range(files):
        path = tree / "files" / f"{number % 32}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(SMALL_BYTES))
        os.utime(path, (VERSION, VERSION))
    with OldServer(home / "old", options.venv) as old:
        tool = [str(options.venv / "bin/filetracker-migrate"), "-s", str(tree / "files"), old.url]
        note("migrate-small", "old tool", files / timed(tool, {"HOME": str(home)}))
        ours = [str(options.binary), "migrate", "--filetracker-url", old.url]
        note("migrate-small", "s3dedup", files / timed(ours, settings(home / "ours"), files))
    ours = [str(options.binary), "migrate-v1", "--v1-directory", str(tree)]
    note("migrate-v1", "s3dedup", files / timed(ours, settings(home / "ours-v1"), files))
    shutil.rmtree(home)


def large(options, home, size, note):
    """Files that do not compress, read as they are from the old server, and copied from it."""
    names = [f"large{number}" for number in range(4)]
    with OldServer(home / "old", options.venv) as old:
        sizes = [put(old, name, os.urandom(size)) for name in names]
        megabytes = sum(sizes) / (1 << 20)
        begun = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(lambda name: download(old, name), names))
        note("migrate-large", "old server, raw GET", megabytes / (time.perf_counter() - begun))
        os.sync()
        begun = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(lambda name: download(old, name, home / name), names))
        note("migrate-large", "GET, synced to disk", megabytes / (time.perf_counter() - begun))
        ours = [str(options.binary), "migrate", "--filetracker-url", old.url]
        note("migrate-large", "s3dedup", megabytes / timed(ours, settings(home / "ours"), len(names)))
    shutil.rmtree(home)


def walk(options, home, files, note):
    """Empty files, which cost nothing but their names; the copying is cut off."""
    per_folder = 1000
    for number in range(0, files, per_folder):
        folder = home / "v1/files" / f"{number // per_folder // 32}" / f"{number // per_folder}"
        folder.mkdir(parents=True)
        for name in range(min(per_folder, files - number)):
            os.close(os.open(folder / f"file{name}", os.O_CREAT | os.O_WRONLY, 0o644))
    log = home / "log"
    command = [str(options.binary), "migrate-v1", "--v1-directory", str(home / "v1")]
    with open(log, "wb") as out:
        process = subprocess.Popen(command, env=environment(settings(home / "ours")), stdout=out, stderr=out)
        try:
            wait_for(process, log, "names are listed")
            begun, before = time.perf_counter(), resident_mib(process.pid)
            peak = before
            while "all names are known" not in log.read_text(errors="replace"):
                if process.poll() is not None:
                    raise ServerError(log.read_text(errors="replace")[-800:])
                peak = max(peak, resident_mib(process.pid))
                time.sleep(0.05)
            seconds = time.perf_counter() - begun
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
    note("walk-rate", "s3dedup", files / seconds)
    note("walk-growth", "s3dedup", peak - before)
    shutil.rmtree(home)


def settings(home):
    home.mkdir(parents=True, exist_ok=True)
    return {
        "DATA_DIR": str(home / "data"), "TEMP_DIR": str(home / "temp"), "STORAGE_TYPE": "filesystem",
        "LOG_LEVEL": "info", "FILETRACKER_PREFIX": "",
    }


def environment(variables):
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | variables


def timed(command, variables, files=None):
    """Seconds that a command takes; ours must say that it copied all files."""
    os.sync()
    begun = time.perf_counter()
    done = subprocess.run(command, env=environment(variables), capture_output=True, text=True,
                          timeout=COMMAND_SECONDS_MAX, check=False)
    seconds = time.perf_counter() - begun
    copied = files is None or any(line.split() == ["copied", str(files)] for line in done.stdout.splitlines())
    if done.returncode != 0 or not copied:
        raise ServerError(f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-800:]}")
    return seconds


def put(server, name, content):
    """Stores a file the way the client does; returns the size of its body."""
    body = gzip.compress(content, compresslevel=1)
    headers = {
        "Content-Encoding": "gzip", "SHA256-Checksum": hashlib.sha256(content).hexdigest(),
        "Logical-Size": str(len(content)), "Content-Length": str(len(body)),
    }
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("PUT", f"/files/{name}?last_modified={LAST_MODIFIED}", body=body, headers=headers)
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise ServerError(f"the old server answers {answer.status}")
    return len(body)


def download(server, name, file=None):
    """By curl: reading in Python would be what is measured. Kept durably when there is a file for it."""
    subprocess.run(["curl", "-sSf", "-o", str(file or "/dev/null"), f"{server.url}/files/{name}"], check=True)
    if file:
        with open(file, "rb") as written:
            os.fsync(written.fileno())


def wait_for(process, log, text):
    while text not in log.read_text(errors="replace"):
        if process.poll() is not None:
            raise ServerError(log.read_text(errors="replace")[-800:])
        time.sleep(0.005)


def resident_mib(pid):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0) / 1024


def rows(figures, make):
    """Lines of the report; `make` is its `Row`."""
    made = []
    rules = {"migrate-small": ("old tool", 3), "migrate-v1": None, "migrate-large": ("old server, raw GET", 0.9)}
    units = {"migrate-large": "MiB/s", "walk-growth": "MiB"}
    for (workload, who), values in (figures or {}).items():
        row = make(workload, who, statistics.median(values), units.get(workload, "files/s"), rates=values)
        rule = rules.get(workload)
        if rule and who == "s3dedup" and (workload, rule[0]) in figures:
            row.baseline, least = rule
            others = figures[workload, row.baseline]
            row.ratio = statistics.median(mine / its for mine, its in zip(values, others))
            row.target, row.reached = f">= {least}x", row.ratio >= least
        if workload == "walk-growth":
            row.target, row.reached = f"< {WALK_GROWTH_MAX_MIB} MiB", row.value < WALK_GROWTH_MAX_MIB
        made.append(row)
    return made
