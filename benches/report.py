"""From samples to rows: medians, ratios against a baseline, targets reached or not; as a table and as JSON."""

import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass, field

import clean
import ha
import migration
from generators import CLIENTS

OLD, RAW = "old server", "raw S3"
DEFAULT_LIMIT_MIB = 64

TITLES = {
    "put-new": "PUT new 4 KiB",
    "put-dup": "PUT duplicate 4 KiB",
    "put-same": f"PUT same new, {CLIENTS} at once",
    "get": "GET 4 KiB",
    "get-close": "GET 4 KiB, new connections",
    "get-logged": "GET 4 KiB, access log",
    "put-large": "PUT large",
    "get-large": "GET large",
    "rss-default": "memory, default limit",
    "rss-small": "memory, limit 1 MiB",
    "list-first-byte": "list, first byte",
    "list-total": "list, whole",
    "list-growth": "list, memory growth",
}
VERIFY_TITLES = {
    "verify-noise-cold": "verify --deep, cold disk",
    "verify-noise-warm": "verify --deep, in memory",
    "verify-text-cold": "verify --deep, text, cold disk",
    "verify-text-warm": "verify --deep, text, in memory",
}
UNITS = {"rss-default": "MiB", "rss-small": "MiB", "list-first-byte": "ms", "list-total": "ms", "list-growth": "MiB"}

# Ours against a baseline: (workload, store of ours) -> baseline, least ratio, whether the p99 must be lower, too.
RATIOS = {
    ("put-new", "folder"): (OLD, 3, False),
    ("put-new", "S3"): (OLD, 3, False),
    ("put-dup", "folder"): (OLD, 8, True),
    ("put-dup", "S3"): (OLD, 8, True),
    ("put-same", "folder"): (OLD, 50, False),
    ("put-same", "S3"): (OLD, 50, False),
    ("get", "folder"): (OLD, 8, True),
    ("get", "S3"): (OLD, 8, True),
    ("get-close", "folder"): (OLD, None, False),
    ("get-close", "S3"): (OLD, None, False),
    ("get-logged", "folder, access log"): ("s3dedup, folder", None, False),
    ("put-large", "folder"): (OLD, None, False),
    ("put-large", "S3"): (RAW, 0.6, False),
    ("get-large", "folder"): (OLD, None, False),
    ("get-large", "S3"): (RAW, 0.85, False),
}
# Figures that must stay below a bound.
BOUNDS = {
    "rss-default": 64 + CLIENTS * DEFAULT_LIMIT_MIB,
    "rss-small": 200,
    "list-first-byte": 100,
    "list-growth": 32,
}

NOTES = [
    "Medians over the rounds, the ratio that of the rounds' ratios; peak memory is the highest of all rounds, summed over a server's processes (S3 behind "
    "s3dedup not counted).",
    "The old server and the raw S3 server (Garage as it comes) sync nothing before they answer; s3dedup has synced "
    "the content and its entry before it acknowledges a write.",
    f"Load generators and servers share this machine's {os.cpu_count()} cores; s3dedup on S3 shares them with its S3 "
    "server, too.",
    "Why a target is missed, where it is: a new content waits for the disk three times (its intent, the object with its "
    "folders, the commit), so its rate is that of the disk's syncs; small GETs and duplicate PUTs use all of the "
    "processor; large GETs from S3 add a copy, a hash and a send of every byte to the same cores; a deep verify "
    "unpacks and hashes twice what a raw read only moves, so it is bound by the processor when bytes come from memory "
    "or are text; a migration writes and syncs what a raw GET throws away.",
]


@dataclass
class Row:
    """One line of the report."""

    workload: str
    server: str
    value: float
    unit: str
    p50_ms: float | None = None
    p99_ms: float | None = None
    peak_mib: float | None = None
    rates: list = field(default_factory=list)
    baseline: str | None = None
    ratio: float | None = None
    target: str | None = None
    reached: bool | None = None
    remarks: list = field(default_factory=list)


def rows(results):
    """All rows, workload by workload in the order of TITLES."""
    made = {key: timed(*key, samples) for key, samples in results.samples.items() if key[0] in TITLES}
    for (workload, server), row in made.items():
        rule = RATIOS.get((workload, results.stores[server]))
        if rule:
            _compare(row, rule, made)
    for key, value in results.figures.items():
        made[key] = _bounded(*key, value)
    return sorted(made.values(), key=lambda row: list(TITLES).index(row.workload))


def table(lines, scale):
    """The rows as aligned text."""
    cells = [["workload", "server", "value", "unit", "p50 ms", "p99 ms", "peak MiB", "ratio", "target", "reached"]]
    previous = None
    for row in lines:
        if row.workload != previous and previous:
            cells.append([""] * len(cells[0]))
        large = f"{scale.large_bytes >> 20} MiB"
        title = (TITLES | ha.TITLES | clean.TITLES | VERIFY_TITLES | migration.TITLES)[row.workload]
        title = title.replace("large", large) if row.workload != previous else ""
        previous = row.workload
        reached = {True: "yes", False: "NO", None: ""}[row.reached]
        cells.append([
            title, row.server, _number(row.value), row.unit, _number(row.p50_ms), _number(row.p99_ms),
            _number(row.peak_mib), f"{row.ratio:.2f}x {row.baseline}" if row.ratio else "", row.target or "",
            "; ".join([reached, *row.remarks]).lstrip("; "),
        ])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    right = {2, 4, 5, 6}
    text = ["  ".join(cell.rjust(width) if column in right else cell.ljust(width)
                      for column, (cell, width) in enumerate(zip(line, widths))).rstrip() for line in cells]
    text.insert(1, "-" * max(map(len, text)))
    return "\n".join([*text, "", *(f"* {note}" for note in NOTES)])


def write_json(path, lines, scale, errors):
    """The rows with what is needed to compare them with another run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cores": os.cpu_count(), "kernel": platform.release(), "architecture": platform.machine()}
    outcome = {
        "machine": machine,
        "clients": CLIENTS,
        "scale": asdict(scale),
        "rows": [asdict(row) for row in lines],
        "errors": errors,
        "notes": NOTES,
    }
    path.write_text(json.dumps(outcome, indent=1) + "\n")


def timed(workload, server, samples):
    """The row of a workload on a server: medians over the rounds."""
    median = statistics.median
    return Row(
        workload, server,
        value=median(sample.rate for sample in samples),
        unit="MiB/s" if workload.endswith("large") else "req/s",
        p50_ms=median(sample.p50_ms for sample in samples),
        p99_ms=median(sample.p99_ms for sample in samples),
        peak_mib=max(sample.peak_mib for sample in samples),
        rates=[sample.rate for sample in samples],
        remarks=[f"FAILED: {failure}" for sample in samples for failure in sample.failures[:1]],
    )


def _compare(row, rule, made):
    """Fills in ratio, target and verdict of one of our rows."""
    baseline, least, lower_p99 = rule
    other = made.get((row.workload, baseline))
    if other is None or not all(other.rates):
        return
    row.baseline = baseline
    row.ratio = _ratio(row, other)
    if least is None:
        return
    row.target = f">= {least}x" + (", lower p99" if lower_p99 else "")
    row.reached = not row.remarks and row.ratio >= least and (not lower_p99 or row.p99_ms < other.p99_ms)
    raw = made.get((row.workload, RAW))
    if not row.reached and baseline == OLD and row.server.endswith("S3") and raw and _ratio(raw, other) < least:
        row.remarks.append(f"raw S3 itself: {_ratio(raw, other):.2f}x {OLD}")


def _ratio(row, other):
    """The median of the ratios round by round: what disturbs a round disturbs both servers."""
    return statistics.median(mine / its for mine, its in zip(row.rates, other.rates))


def _bounded(workload, server, value):
    bound = BOUNDS.get(workload)
    row = Row(workload, server, value, UNITS[workload])
    if bound is not None:
        row.target = f"< {bound} {row.unit}"
        row.reached = value < bound
    return row


def _number(value):
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"
