"""What is measured: which requests each server gets, in which order, and what is read off it.

Every timed run follows a sync of the disk, so that no server pays for what another left unwritten.
"""

import functools
import itertools
import os
import statistics
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass

import contents
import generators
from generators import CLIENTS, LoadError
from servers import ServerError

KNOWN_FILES = 2000
PREFILL_SECONDS = 120
FILL_SECONDS = 3600

SMALL = ("put-new", "put-dup", "put-same", "get", "get-close")
LARGE = ("put-large", "get-large")
MEMORY = ("rss-default", "rss-small")
LIST = ("list-first-byte", "list-total", "list-growth")
SMALL_LIMIT = 1 << 20


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    rounds: int
    seconds: int
    large_rounds: int
    large_bytes: int
    new_files: int
    dup_files: int
    names: int


FULL = Scale(rounds=3, seconds=5, large_rounds=3, large_bytes=256 << 20,
             new_files=40_000, dup_files=80_000, names=1_000_000)
QUICK = Scale(rounds=2, seconds=2, large_rounds=1, large_bytes=32 << 20,
              new_files=10_000, dup_files=20_000, names=50_000)


class Results:
    """Samples and plain figures by (workload, server), in the order they were first seen."""

    def __init__(self, progress):
        self.samples = defaultdict(list)
        self.figures = {}
        self.stores = {}
        self.errors = []
        self.progress = progress

    @contextmanager
    def attempt(self, what):
        """Notes an error of this part and lets the others go on."""
        try:
            yield
        except (LoadError, ServerError, OSError) as error:
            self.errors.append(f"{what}: {error}")
            self.progress(self.errors[-1])

    def add(self, workload, server, sample):
        sample.peak_mib = server.peak_mib()
        self.samples[workload, server.name].append(sample)
        self.stores[server.name] = server.store
        failed = f"  FAILED: {sample.failures[0]}" if sample.failures else ""
        self.progress(f"{workload:10} {server.name:16} {sample.rate:9.1f}/s  p99 {sample.p99_ms:8.1f} ms{failed}")

    def set(self, workload, server, value):
        self.figures[workload, server.name] = value
        self.stores[server.name] = server.store
        self.progress(f"{workload:15} {server.name:16} {value:9.1f}")


class RequestFiles:
    """The request files of one round, made when first asked for; servers of one protocol share them."""

    def __init__(self, directory, number, scale, known):
        self.directory = directory
        self.number = number
        self.scale = scale
        self.known = known
        self.written = {}

    def path(self, workload, protocol):
        """The file of a workload's requests."""
        key = workload, protocol
        if key not in self.written:
            path = self.directory / f"{workload}-{type(protocol).__name__}"
            self.written[key] = contents.write_requests(path, self._requests(workload, protocol))
        return self.written[key]

    def groups(self, protocol):
        """For put-same: per content one PUT from each client, under a name of its own."""
        for number, content in enumerate(self._same):
            names = self._names(f"same/{number}", CLIENTS)
            yield [contents.put_request(protocol, name, content) for name in names]

    def _requests(self, workload, protocol):
        if workload == "put-new":
            return contents.puts_of_new(protocol, self._names("new", self.scale.new_files), self._new)
        if workload == "put-dup":
            return contents.puts_of_known(protocol, self._names("dup", self.scale.dup_files), self.known)
        return (contents.get_request(protocol, name, close=workload == "get-close") for name in known_names())

    @functools.cached_property
    def _new(self):
        return list(contents.small(self.scale.new_files))

    @functools.cached_property
    def _same(self):
        return list(contents.small(self.scale.new_files // CLIENTS))

    def _names(self, kind, count):
        return (f"bench/{self.number}/{kind}/{index % 100}/{index}" for index in range(count))


def known_names():
    """The files every server holds before the small requests are timed."""
    return [f"bench/known/{index % 100}/{index}" for index in range(KNOWN_FILES)]


def run_small(servers, wanted, directory, scale, results):
    """Small requests, round by round, workload by workload, one server after the other."""
    known = list(contents.small(KNOWN_FILES))
    for server in servers:
        requests = list(contents.puts_of_new(server.protocol, known_names(), known))
        # The last requests of a file may be cut off: they are there twice.
        with results.attempt(f"filling {server.name}"):
            prefill(server, directory / "prefill", requests + requests[-2 * CLIENTS:], PREFILL_SECONDS)
    for number in range(scale.rounds):
        files = RequestFiles(directory, number, scale, known)
        for workload in wanted:
            for server in servers:
                with results.attempt(f"{workload} on {server.name}"):
                    results.add(workload, server, _run_small(server, workload, files, scale.seconds))


def _run_small(server, workload, files, seconds):
    if workload == "put-same":
        groups = files.groups(server.protocol)
        settle(server)
        return generators.bursts(server, groups, seconds)
    path = files.path(workload, server.protocol)
    settle(server)
    return generators.small_requests(server, path, "once" if workload.startswith("put") else "loop", seconds)


def run_logged(make, directory, scale, results):
    """Small downloads without and with the access log, on standard error and in a file: round by round on both."""
    known = list(contents.small(KNOWN_FILES))
    with results.attempt("get-logged"), make() as plain, make(access_log=True) as logged:
        for server in (plain, logged):
            requests = list(contents.puts_of_new(server.protocol, known_names(), known))
            prefill(server, directory / "prefill", requests + requests[-2 * CLIENTS:], PREFILL_SECONDS)
        path = directory / "get-logged"
        contents.write_requests(path, (contents.get_request(plain.protocol, name, close=False) for name in known_names()))
        for _ in range(scale.rounds):
            for server in (plain, logged):
                settle(server)
                sample = generators.small_requests(server, path, "loop", scale.seconds)
                results.add("get-logged", server, sample)


def run_large(makers, wanted, directory, scale, results):
    """Large files: in every round every server starts empty and gets the same new contents."""
    large = contents.LargeContents(directory / "large", scale.large_bytes)
    names = [f"bench/large/{client}" for client in range(CLIENTS)]
    for _ in range(scale.large_rounds):
        files = large.make(CLIENTS)
        for make in makers:
            with results.attempt("large files"), make() as server:
                settle(server)
                results.add("put-large", server, generators.large_puts(server, names, files))
                if "get-large" in wanted:
                    settle(server)
                    results.add("get-large", server, generators.large_gets(server, names, files))


def run_memory(makers, limit, workload, directory, scale, results):
    """Peak memory while all clients first store and then read large files."""
    large = contents.LargeContents(directory / workload, scale.large_bytes)
    names = [f"bench/large/{client}" for client in range(CLIENTS)]
    files = large.make(CLIENTS)
    for make in makers:
        with results.attempt(workload), make(memory_limit=limit) as server:
            settle(server)
            for transfer in (generators.large_puts, generators.large_gets):
                sample = transfer(server, names, files)
                if sample.failures:
                    raise LoadError(f"{server.name}: {sample.failures[0]}")
            results.set(workload, server, server.peak_mib())


def run_list(make, directory, scale, results):
    """The listing of many names that share one content: seconds to the first byte, in all, and memory growth."""
    with results.attempt("list"), make() as server:
        content = next(contents.small(1, size=64))
        names = (f"bench/list/{index % 1000}/{index}" for index in range(scale.names))
        requests = contents.puts_of_new(server.protocol, names, itertools.repeat(content))
        tail = itertools.repeat(contents.put_request(server.protocol, "bench/list/0/0", content), 2 * CLIENTS)
        prefill(server, directory / "fill", itertools.chain(requests, tail), FILL_SECONDS)
        answer = directory / "list"
        seen = []
        for _ in range(3):
            settle(server)
            before = server.resident_mib()
            first, total = generators.download(server, server.protocol.list_target(), answer)
            seen.append((first * 1e3, total * 1e3, server.peak_mib() - before))
            with open(answer, "rb") as file:
                count = sum(1 for _ in file)
            if count != scale.names:
                raise LoadError(f"{server.name} listed {count} names instead of {scale.names}")
        for workload, values in zip(LIST, zip(*seen)):
            results.set(workload, server, statistics.median(values))


def prefill(server, path, requests, seconds):
    """Stores files without timing; every request must succeed."""
    contents.write_requests(path, requests)
    sample = generators.small_requests(server, path, "once", seconds)
    path.unlink()
    if sample.failures:
        raise LoadError(", ".join(sample.failures))


def settle(server):
    """Leaves nothing of an earlier run to be paid for by the next."""
    os.sync()
    server.reset_peak()
