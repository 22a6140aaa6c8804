"""What metadata and locks in PostgreSQL cost: against SQLite in the same run, and two instances against one."""

import json
import os
import secrets
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import contents
import generators
import workloads
from generators import LoadError
from servers import Garage, Ours, ServerError, free_port

SQLITE, POSTGRES = "SQLite", "PostgreSQL"
ONE, TWO = "1 instance", "2 instances"
DUP_CLIENTS = 64
ROOT = Path(__file__).resolve().parent.parent

# Rows of the report.
TITLES = {
    "ha-get-1": "GET 4 KiB, 1 client",
    "ha-get-16": "GET 4 KiB, 16 clients",
    "ha-dup-64": f"PUT duplicate, {DUP_CLIENTS} clients",
    "ha-one-64": f"PUT of one content, {DUP_CLIENTS} clients",
    "ha-new-16": "PUT new 4 KiB, 16 clients",
    "ha-two-dup": "PUT duplicate, 2 x 16 clients",
    "ha-two-new": "PUT new 4 KiB, 2 x 16 clients",
    "locks-pairs": "acquire + release, 256 holders",
    "locks-one": "acquire, low load, against a bare round trip",
}


class Postgres:
    """A cluster of its own as it comes from initdb, so every commit is synced; a context manager."""

    user, database = "bench", "s3dedup"

    def __init__(self, home, programs):
        # Run by root it becomes somebody else, who may not get into this folder.
        self.home = Path(tempfile.mkdtemp(prefix="bench-postgres-")) if os.geteuid() == 0 else Path(home)
        self.programs = Path(programs)
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self.process = None

    def __enter__(self):
        self.home.mkdir(parents=True, exist_ok=True)
        password = self.home / "password"
        password.write_text(self.password)
        for path in (self.home, password):
            path.chmod(0o700 if path.is_dir() else 0o600)
            if os.geteuid() == 0:
                os.chown(path, 65534, 65534)
        data = self.home / "data"
        try:
            self._run("initdb", "-D", data, "-U", self.user, "-A", "scram-sha-256", "--pwfile", password,
                      "-E", "UTF8", "--locale=C")
            settings = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.home}"]
            log = open(self.home / "log", "wb")
            self.process = subprocess.Popen(
                self._command("postgres", "-D", data, "-p", self.port, *settings),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
            deadline = time.monotonic() + 30
            while self.sql("postgres", "SELECT 1", check=False) is None:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise ServerError(f"PostgreSQL does not start: {(self.home / 'log').read_text()[-800:]}")
                time.sleep(0.05)
            self.sql("postgres", f"CREATE DATABASE {self.database}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    def sql(self, database, text, check=True):
        outcome = subprocess.run(
            [self.programs / "psql", "-XAtq", "-h", "127.0.0.1", "-p", str(self.port), "-U", self.user, "-d", database,
             "-c", text], env=os.environ | {"PGPASSWORD": self.password}, capture_output=True, text=True)
        if outcome.returncode == 0:
            return outcome.stdout.strip()
        if check:
            raise ServerError(f"PostgreSQL: {outcome.stderr.strip()}")
        return None

    def environment(self):
        return {
            "KVSTORAGE_TYPE": "postgres",
            "LOCKS_TYPE": "postgres",
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": str(self.port),
            "POSTGRES_USER": self.user,
            "POSTGRES_PASSWORD": self.password,
            "POSTGRES_DB": self.database,
        }

    def _command(self, program, *arguments):
        command = [str(self.programs / program), *map(str, arguments)]
        # It refuses to be run by root.
        return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command] if os.geteuid() == 0 else command

    def _run(self, program, *arguments):
        outcome = subprocess.run(self._command(program, *arguments), capture_output=True, text=True, cwd="/")
        if outcome.returncode != 0:
            raise ServerError(f"{program}: {outcome.stderr.strip()}")


class Instance(Ours):
    """s3dedup with its metadata somewhere, its contents in a folder or in a Garage that others may share."""

    def __init__(self, home, binary, name, postgres=None, garage=None, cores=None):
        super().__init__(home, binary)
        self.name = name
        self.postgres = postgres
        self.shared = garage
        self.cores = cores

    def command(self):
        pin = ["taskset", "-c", ",".join(map(str, self.cores))] if self.cores else []
        return [*pin, *super().command()]

    def environment(self):
        environment = super().environment()
        if self.postgres:
            environment |= self.postgres.environment()
        if self.shared:
            environment |= {
                "STORAGE_TYPE": "s3",
                "BUCKET_NAME": self.shared.bucket,
                "S3_ENDPOINT": self.shared.url,
                "S3_ACCESS_KEY": self.shared.access_key,
                "S3_SECRET_KEY": self.shared.secret_key,
                "S3_REGION": self.shared.region,
            }
        if self.cores:
            environment |= {"HTTP_WORKERS": str(len(self.cores)), "CPU_THREADS": str(len(self.cores))}
        return environment


def run(options, work, scale, results):
    """Everything of this page; `results` gets samples by (workload, server)."""
    with results.attempt("metadata in PostgreSQL"), ExitStack() as stack:
        postgres = stack.enter_context(Postgres(work / "ha-postgres", options.postgres))
        servers = [
            stack.enter_context(Instance(work / "ha-sqlite", options.binary, SQLITE)),
            stack.enter_context(Instance(work / "ha-pg", options.binary, POSTGRES, postgres)),
        ]
        _stores(servers, work, scale, results)
    if len(os.sched_getaffinity(0)) >= 2:
        with results.attempt("two instances"):
            _two(options, work, scale, results)


def _stores(servers, work, scale, results):
    """SQLite and PostgreSQL beside each other, round by round."""
    known = list(contents.small(workloads.KNOWN_FILES))
    names = workloads.known_names()
    for server in servers:
        requests = list(contents.puts_of_new(server.protocol, names, known))
        workloads.prefill(server, work / "prefill", requests + requests[-64:], workloads.PREFILL_SECONDS)
    protocol = servers[0].protocol
    for number in range(scale.rounds):
        def fresh(kind, count):
            return [f"bench/{number}/{kind}/{index % 100}/{index}" for index in range(count)]
        jobs = {
            "ha-get-1": (1, "loop", lambda: (contents.get_request(protocol, name) for name in names)),
            "ha-get-16": (16, "loop", lambda: (contents.get_request(protocol, name) for name in names)),
            "ha-dup-64": (DUP_CLIENTS, "once",
                          lambda: contents.puts_of_known(protocol, fresh("dup", scale.dup_files), known)),
            "ha-one-64": (DUP_CLIENTS, "once",
                          lambda: contents.puts_of_known(protocol, fresh("one", scale.dup_files), known[:1])),
            "ha-new-16": (16, "once",
                          lambda: contents.puts_of_new(protocol, fresh("new", scale.new_files),
                                                       list(contents.small(scale.new_files)))),
        }
        for workload, (clients, mode, requests) in jobs.items():
            path = contents.write_requests(work / workload, requests())
            for server in servers:
                with results.attempt(f"{workload} on {server.name}"):
                    workloads.settle(server)
                    sample = generators.small_requests(server, path, mode, scale.seconds, clients)
                    results.add(workload, server, sample)


def _two(options, work, scale, results):
    """Two instances with a core each against one with both: disjoint contents, the same load generators."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    for number in range(scale.rounds):
        for name, shares in ((ONE, [cores]), (TWO, [cores[:1], cores[1:]])):
            home = work / f"ha-{number}-{len(shares)}"
            with ExitStack() as stack:
                garage = stack.enter_context(Garage(home / "garage", options.garage, "S3 of the instances"))
                postgres = stack.enter_context(Postgres(home / "postgres", options.postgres))
                instances = [
                    stack.enter_context(Instance(home / str(share), options.binary, name, postgres, garage, own))
                    for share, own in enumerate(shares)
                ]
                _round_of_two(instances, work, scale, results, f"{number}-{len(shares)}")


def _round_of_two(instances, work, scale, results, tag):
    protocol = instances[0].protocol
    known = list(contents.small(500))
    names = [f"known/{tag}/{index}" for index in range(500)]
    requests = list(contents.puts_of_new(protocol, names, known))
    workloads.prefill(instances[0], work / "prefill", requests + requests[-64:], workloads.PREFILL_SECONDS)
    for workload in ("ha-two-dup", "ha-two-new"):
        paths = []
        for half in range(2):
            count = scale.dup_files // 2 if workload == "ha-two-dup" else scale.new_files // 2
            names = [f"two/{tag}/{half}/{index % 100}/{index}" for index in range(count)]
            if workload == "ha-two-dup":
                requests = contents.puts_of_known(protocol, names, known)
            else:
                names = [name.replace("two/", "new/") for name in names]
                requests = contents.puts_of_new(protocol, names, list(contents.small(count)))
            paths.append(contents.write_requests(work / f"{workload}-{half}", requests))
        workloads.settle(instances[0])
        targets = [instances[0], instances[-1]]
        with ThreadPoolExecutor(2) as pool:
            halves = list(pool.map(
                lambda job: generators.small_requests(job[0], job[1], "once", scale.seconds, 16), zip(targets, paths)))
        failures = [failure for half in halves for failure in half.failures]
        sample = generators.Sample(
            sum(half.rate for half in halves), statistics.mean(half.p50_ms for half in halves),
            max(half.p99_ms for half in halves), failures=failures)
        results.add(workload, instances[0], sample)


def run_locks(options, results):
    """The lock actor's own benchmark; it starts its PostgreSQL itself."""
    with results.attempt("locks"):
        outcome = subprocess.run(
            ["cargo", "bench", "--quiet", "--locked", "-p", "s3dedup-actors", "--features", "testkit", "--bench", "locks"],
            cwd=ROOT, env=os.environ | {"S3DEDUP_TEST_POSTGRES": str(options.postgres)}, capture_output=True, text=True)
        lines = [line for line in outcome.stdout.splitlines() if line.startswith("{")]
        if outcome.returncode != 0 or not lines:
            raise LoadError(f"the lock benchmark failed: {outcome.stderr.strip()[-800:]}")
        return json.loads(lines[-1])
    return None


def rows(results, locks, make_row):
    """Lines of the report, with what issue they answer to."""
    made = {}
    for (workload, server), samples in results.samples.items():
        if workload not in TITLES:
            continue
        row = make_row(workload, server, samples)
        made[workload, server] = row
    for (workload, server), row in made.items():
        other = made.get((workload, SQLITE if server == POSTGRES else ONE))
        if other is None or other is row:
            continue
        row.baseline, row.ratio = other.server, statistics.median(
            mine / its for mine, its in zip(row.rates, other.rates))
        if workload.startswith("ha-get"):
            row.target = "p50 <= SQLite's + 1 ms"
            row.reached = not row.remarks and row.p50_ms <= other.p50_ms + 1
        elif workload == "ha-dup-64":
            row.target = ">= 2,000/s"
            row.reached = not row.remarks and row.value >= 2000
        elif workload.startswith("ha-two"):
            row.target = ">= 1x"
            row.reached = not row.remarks and row.ratio >= 1
    lines = list(made.values())
    if locks:
        lines += _lock_rows(locks)
    return lines


def _lock_rows(seen):
    from report import Row

    pairs = Row("locks-pairs", "lock actor", seen["pairs_per_second"], "pairs/s",
                p50_ms=seen["acquire_p50_us"] / 1e3, p99_ms=seen["acquire_p99_us"] / 1e3,
                target=">= 20,000/s", reached=seen["pairs_per_second"] >= 20_000)
    one = Row("locks-one", "lock actor", seen["single_acquire_p50_us"], "us",
              baseline=f"{seen['bare_try_lock_p50_us']:.0f} us", ratio=seen["single_to_bare"],
              target="<= 1.5x", reached=seen["single_to_bare"] <= 1.5)
    return [pairs, one]
