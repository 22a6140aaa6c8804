#!/usr/bin/env python3
"""Measures s3dedup (folder and S3 store) side by side with a raw S3 server and the old Filetracker server, on
loopback, in one run. Needs wrk and curl; `make bench` prepares everything."""

import argparse
import functools
import itertools
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import clean
import ha
import migration
import report
import verify
import workloads
from generators import CLIENTS
from servers import Garage, OldServer, Ours, ServerError

ROOT = Path(__file__).resolve().parent.parent
WORKLOADS = (*workloads.SMALL, *workloads.LARGE, "logged", "rss", "list", "ha", "locks", "clean", "verify",
             "migration")
SERVERS = ("ours-folder", "ours-s3", "s3", "old")


def main():
    options = parse_arguments()
    scale = workloads.QUICK if options.quick else workloads.FULL
    if options.names:
        scale = replace(scale, names=options.names)
    check_prerequisites(options, scale)
    # Ends the run like Ctrl-C does, so that every server is stopped and every file removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    work = Path(tempfile.mkdtemp(prefix="bench-", dir=options.json.parent))
    results = workloads.Results(progress=lambda line: print(line, file=sys.stderr, flush=True))
    try:
        locks, cleaned, verified, copied = measure(options, scale, work, results)
    except ServerError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    lines = report.rows(results) + ha.rows(results, locks, report.timed) + clean.rows(cleaned, report.Row) + verified
    lines += migration.rows(copied, report.Row)
    report.write_json(options.json, lines, scale, results.errors)
    print(report.table(lines, scale))
    print(f"\nAlso in {options.json}")
    if results.errors:
        sys.exit("\n".join(["", "Not measured:", *results.errors]))
    if any(sample.failures for samples in results.samples.values() for sample in samples):
        sys.exit("bench: some requests failed, see the rows marked FAILED")


def measure(options, scale, work, results):
    """Runs every chosen workload on every chosen server; returns what makes rows of its own."""
    homes = (work / f"server-{number}" for number in itertools.count())
    every_maker = {
        "ours-folder": lambda **limits: Ours(next(homes), options.binary, **limits),
        "ours-s3": lambda **limits: Ours(next(homes), options.binary, options.garage, **limits),
        "s3": lambda: Garage(next(homes), options.garage),
        "old": lambda: OldServer(next(homes), options.venv),
    }
    makers = {name: every_maker[name] for name in SERVERS if name in options.servers}
    ours = [make for name, make in makers.items() if name.startswith("ours")]

    small = [name for name in workloads.SMALL if name in options.only]
    if small:
        with ExitStack() as stack:
            servers = [stack.enter_context(make()) for make in makers.values()]
            workloads.run_small(servers, small, work, scale, results)
    if "logged" in options.only and "ours-folder" in makers:
        workloads.run_logged(makers["ours-folder"], work, scale, results)
    large = [name for name in workloads.LARGE if name in options.only]
    if large:
        workloads.run_large(makers.values(), large, work, scale, results)
    if "rss" in options.only:
        workloads.run_memory(ours, None, "rss-default", work, scale, results)
        workloads.run_memory(ours, workloads.SMALL_LIMIT, "rss-small", work, scale, results)
    if "list" in options.only and "ours-folder" in makers:
        workloads.run_list(makers["ours-folder"], work, scale, results)
    if "ha" in options.only:
        ha.run(options, work, scale, results)
    verified = verify.run(options, work, scale, results) if "verify" in options.only else []
    locks = ha.run_locks(options, results) if "locks" in options.only else None
    cleaned = clean.run(options, results) if "clean" in options.only else []
    copied = migration.run(options, work, scale, results) if "migration" in options.only else None
    return locks, cleaned, verified, copied


def check_prerequisites(options, scale):
    """Ends with one line when something is missing."""
    for name in ("wrk", "curl"):
        if not shutil.which(name):
            sys.exit(f"bench: {name} is not installed; `make bench` does that")
    needed = {"--binary": options.binary, "--garage": options.garage, "--venv": options.venv}
    if {"ha", "locks", "clean"} & set(options.only):
        needed["--postgres"] = options.postgres / "initdb"
    if not {"s3", "ours-s3"} & set(options.servers) and "ha" not in options.only:
        del needed["--garage"]
    if "old" not in options.servers and "migration" not in options.only:
        del needed["--venv"]
    if not any(name.startswith("ours") for name in options.servers) and "migration" not in options.only:
        del needed["--binary"]
    for option, path in needed.items():
        if not path.exists():
            sys.exit(f"bench: {path} does not exist; give another one with {option}, or use `make bench`")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    # The request bodies, the same in a store, in a server's temporary files, and as much in reserve.
    space = 4 * CLIENTS * scale.large_bytes
    free = shutil.disk_usage(options.json.parent).free
    if free < space:
        sys.exit(f"bench: {options.json.parent} has {free >> 30} GiB free, {space >> 30} GiB are needed")


def newest_postgres():
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    return max(folders, key=lambda folder: float(folder.parent.name), default=Path("/usr/bin"))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    path = functools.partial(parser.add_argument, type=lambda text: Path(text).resolve())
    parser.add_argument("--quick", action="store_true", help="smaller numbers, two to three minutes")
    parser.add_argument("--only", action="append", choices=WORKLOADS, metavar="NAME",
                        help=f"only this workload (may be repeated): {', '.join(WORKLOADS)}; default: all")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=SERVERS, metavar="NAME",
                        help=f"only these servers: {', '.join(SERVERS)}; default: all")
    parser.add_argument("--names", type=int, metavar="N",
                        help=f"how many names the listing has; default: {workloads.FULL.names}")
    path("--json", default=ROOT / "target/bench.json", metavar="FILE",
         help="where the figures go, scratch files beside it; default: target/bench.json")
    path("--binary", default=ROOT / "target/release/s3dedup", metavar="FILE",
         help="our server; default: target/release/s3dedup")
    path("--garage", default=Path.home() / ".cargo/bin/garage", metavar="FILE",
         help="the raw S3 server; default: in cargo's bin directory")
    path("--venv", default=ROOT / "target/tools/venv", metavar="DIR",
         help="where the old server is installed; default: target/tools/venv")
    path("--postgres", default=newest_postgres(), metavar="DIR",
         help="PostgreSQL's programs; default: Debian's newest")
    options = parser.parse_args()
    options.only = options.only or WORKLOADS
    return options


if __name__ == "__main__":
    main()
