"""Memory and requests of the cleaner: 1,000,000 contents of which 100,000 are garbage, on both metadata stores."""

import json
import os
import subprocess
from pathlib import Path

from generators import LoadError

ROOT = Path(__file__).resolve().parent.parent
STORES = {"sqlite": "SQLite", "postgres": "PostgreSQL"}
TITLES = {
    "clean-growth": "cleaning, memory growth",
    "clean-requests": "cleaning, requests per 1,000 deleted",
    "clean-time": "cleaning",
    "scan-growth": "full scan, memory growth",
    "scan-time": "full scan",
}
GROWTH_MAX_MIB, REQUESTS_MAX = 32, 2


def run(options, results):
    """The cleaner's own benchmark, once for each store; it starts its PostgreSQL itself."""
    seen = []
    for store in STORES:
        with results.attempt("clean"):
            environment = os.environ | {"S3DEDUP_TEST_POSTGRES": str(options.postgres), "CLEAN_BENCH_STORE": store}
            if options.quick:
                environment["CLEAN_BENCH_CONTENTS"] = "100000"
            outcome = subprocess.run(
                ["cargo", "bench", "--quiet", "--locked", "-p", "s3dedup-actors", "--features", "testkit",
                 "--bench", "clean"], cwd=ROOT, env=environment, capture_output=True, text=True)
            lines = [line for line in outcome.stdout.splitlines() if line.startswith("{")]
            if outcome.returncode != 0 or not lines:
                raise LoadError(f"the cleaner's benchmark failed: {outcome.stderr.strip()[-800:]}")
            seen.append(json.loads(lines[-1]))
    return seen


def rows(seen, make_row):
    """Lines of the report."""
    made = []
    for workload, key, unit, bound in (
        ("clean-growth", "clean_rss_growth_mib", "MiB", GROWTH_MAX_MIB),
        ("clean-requests", "clean_requests_per_1000_deletions", "", REQUESTS_MAX),
        ("clean-time", "clean_seconds", "s", None),
        ("scan-growth", "scan_rss_growth_mib", "MiB", GROWTH_MAX_MIB),
        ("scan-time", "scan_seconds", "s", None),
    ):
        for one in seen:
            row = make_row(workload, STORES[one["metadata"]], one[key], unit)
            if bound:
                row.target, row.reached = f"<= {bound} {unit}".rstrip(), one[key] <= bound
            made.append(row)
    return made
