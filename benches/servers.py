"""The servers under measurement: real processes on loopback ports, each with its files under one directory."""

import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from protocols import HOST, S3, Filetracker

START_SECONDS = 20
STOP_SECONDS = 5


class ServerError(Exception):
    """A server that does not start or ended early."""


class Server:
    """A process group that answers HTTP on one port; a context manager that leaves neither process nor file."""

    store = "-"

    def __init__(self, name, home):
        self.name = name
        self.home = Path(home)
        self.port = free_port()
        self.process = None

    def __enter__(self):
        self.home.mkdir(parents=True)
        try:
            self.log = open(self.home / "log", "wb")
            self.process = subprocess.Popen(
                self.command(), env=os.environ | {"TMPDIR": str(self.home)} | self.environment(), cwd=self.home,
                stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True)
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process:
            self._signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            self._signal(signal.SIGKILL)
            self.process.wait()
            self.log.close()
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def environment(self):
        return {}

    def peak_mib(self):
        """The highest resident memory since `reset_peak`, all processes together."""
        return sum(_status_kib(pid, "VmHWM") for pid in self._pids()) / 1024

    def resident_mib(self):
        return sum(_status_kib(pid, "VmRSS") for pid in self._pids()) / 1024

    def reset_peak(self):
        for pid in self._pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def _pids(self):
        """The process and its descendants."""
        if self.process.poll() is not None:
            raise ServerError(f"{self.name} ended with status {self.process.returncode}: {self._log_end()}")
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").iterdir():
                queue += [int(child) for child in (task / "children").read_text().split()]
        return found

    def _wait_until_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self.process.poll() is not None:
                raise ServerError(f"{self.name} did not start: {self._log_end()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} is not ready after {START_SECONDS} s: {self._log_end()}")
            time.sleep(0.05)

    def _is_ready(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", self.ready_target, headers={"Host": HOST})
            return connection.getresponse().status in self.ready_statuses
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _signal(self, number):
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def _log_end(self):
        self.log.flush()
        return (self.home / "log").read_text(errors="replace").strip()[-800:] or "(no output)"


class Garage(Server):
    """The raw S3 server: a single Garage node on LMDB, otherwise as it comes."""

    region = "garage"
    bucket = "bench"
    # Nobody may list buckets without a signature: this answer means that the API is up.
    ready_target = "/"
    ready_statuses = (403,)

    def __init__(self, home, binary, name="raw S3"):
        super().__init__(name, home)
        self.binary = binary
        self.access_key = "GK" + secrets.token_hex(12)
        self.secret_key = secrets.token_hex(32)
        self.protocol = S3(self.bucket, self.region, self.access_key, self.secret_key)

    def command(self):
        config = self.home / "garage.toml"
        rpc, admin = free_port(), free_port()
        config.write_text(f"""\
metadata_dir = "{self.home}/meta"
data_dir = "{self.home}/data"
db_engine = "lmdb"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:{rpc}"
rpc_public_addr = "127.0.0.1:{rpc}"
rpc_secret = "{secrets.token_hex(32)}"

[s3_api]
s3_region = "{self.region}"
api_bind_addr = "127.0.0.1:{self.port}"

[admin]
api_bind_addr = "127.0.0.1:{admin}"
""")
        config.chmod(0o600)
        return [self.binary, "-c", str(config), "server", "--single-node", "--default-bucket"]

    def environment(self):
        return {
            "GARAGE_DEFAULT_ACCESS_KEY": self.access_key,
            "GARAGE_DEFAULT_SECRET_KEY": self.secret_key,
            "GARAGE_DEFAULT_BUCKET": self.bucket,
            "RUST_LOG": "error",
        }


class OldServer(Server):
    """The Filetracker server that ours replaces, with one gunicorn worker per core."""

    protocol = Filetracker()
    ready_target = "/version"
    ready_statuses = (200,)

    def __init__(self, home, venv):
        super().__init__("old server", home)
        self.venv = Path(venv)

    def command(self):
        return [
            str(self.venv / "bin/filetracker-server"), "--no-daemon", "--listen-on", "127.0.0.1",
            "--port", str(self.port), "--dir", str(self.home / "data"),
            "--workers", str(os.cpu_count()), "--log-level", "ERROR",
        ]

    def environment(self):
        # It starts gunicorn by name.
        return {"PATH": f"{self.venv / 'bin'}:{os.environ['PATH']}"}


class Ours(Server):
    """s3dedup over a folder, or over a Garage of its own; serving at the root, like the old server."""

    protocol = Filetracker()
    ready_target = "/version"
    ready_statuses = (200,)

    def __init__(self, home, binary, garage_binary=None, memory_limit=None, access_log=False):
        self.store = ("S3" if garage_binary else "folder") + (", access log" if access_log else "")
        super().__init__(f"s3dedup, {self.store}", Path(home) / "server")
        self.binary = binary
        self.memory_limit = memory_limit
        self.access_log = access_log
        self.garage = Garage(Path(home) / "garage", garage_binary, "S3 behind s3dedup") if garage_binary else None

    def __enter__(self):
        if self.garage:
            self.garage.__enter__()
        try:
            return super().__enter__()
        except BaseException:
            if self.garage:
                self.garage.__exit__()
            raise

    def __exit__(self, *_):
        super().__exit__()
        if self.garage:
            self.garage.__exit__()

    def command(self):
        return [str(self.binary), "server", "--env"]

    def environment(self):
        environment = {
            "LISTEN_ADDRESS": "127.0.0.1",
            "LISTEN_PORT": str(self.port),
            "DATA_DIR": str(self.home / "data"),
            "TEMP_DIR": str(self.home / "temp"),
            "FILETRACKER_PREFIX": "",
            "LOG_LEVEL": "warn",
            "STORAGE_TYPE": "filesystem",
        }
        if self.memory_limit:
            environment["MAX_INMEMORY_SIZE"] = str(self.memory_limit)
        if self.access_log:
            environment |= {"ACCESS_LOG": "true", "JSON_LOG_PATH": str(self.home / "log.json"), "JSON_LOG_ROTATE": "size"}
        if self.garage:
            environment |= {
                "STORAGE_TYPE": "s3",
                "BUCKET_NAME": self.garage.bucket,
                "S3_ENDPOINT": self.garage.url,
                "S3_ACCESS_KEY": self.garage.access_key,
                "S3_SECRET_KEY": self.garage.secret_key,
                "S3_REGION": self.garage.region,
            }
        return environment


def free_port():
    """A loopback port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _status_kib(pid, field):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(field + ":")), 0)
