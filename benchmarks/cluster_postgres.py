"""A PostgreSQL of our own for tests: a temporary server on loopback, made once in a test session."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from attrs import define, field
from psycopg.conninfo import make_conninfo

_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/bin")
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
}


def binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest one."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(
        path for place in _PLACES for path in Path("/").glob(place.lstrip("/")) if (path / "initdb").exists()
    )
    return folders[-1] if folders else None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@define
class Server:
    """A running server."""

    folder: Path
    port: int
    bin: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://tester:secret-word@127.0.0.1:{self.port}/{database}"

    def make(self) -> None:
        password = self.folder / "password"
        password.write_text("secret-word")
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
            password.chmod(0o644)
        self._run(
            "initdb",
            "-D",
            self.folder / "data",
            "-U",
            "tester",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            f"--pwfile={password}",
        )

    def start(self) -> None:
        """Start it, and wait until it takes connections. After a kill its old processes may still be ending."""
        end = time.monotonic() + 60
        while not self._has_started():
            if time.monotonic() > end:
                raise TimeoutError((self.folder.parent / "server.log").read_text()[-2000:])
            time.sleep(0.05)

    def _has_started(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            self.process = self._process()
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _process(self) -> subprocess.Popen[bytes]:
        options = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command = [self.bin / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-k", self.folder, *options]
        with (self.folder.parent / "server.log").open("ab") as log:
            return subprocess.Popen(
                [*as_user(), *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill the server as a power cut does."""
        assert self.process is not None
        postmaster = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self._run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop")
            self.process.wait()

    def _run(self, name: str, *arguments: object) -> None:
        command = [*as_user(), str(self.bin / name), *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make a new database, and yield its URL."""
        with new_database(self.url) as url:
            yield url


@contextmanager
def new_database(url: str) -> Iterator[str]:
    """Make a new database beside the one at *url*, and yield its URL."""
    name = f"heygen_{secrets.token_hex(6)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    try:
        yield make_conninfo(url, dbname=name) if "://" not in url else f"{url.rpartition('/')[0]}/{name}"
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def empty(url: str) -> None:
    """Remove the tables of a cluster, and end what still uses them."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute("DROP SCHEMA IF EXISTS heygen, heygen_engine CASCADE")


def as_user() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []


@contextmanager
def temporary_server() -> Iterator[Server]:
    folder = binaries()
    assert folder is not None
    with tempfile.TemporaryDirectory(prefix="heygen-postgres-") as name:
        Path(name).chmod(0o755)
        place = Path(name) / "server"
        place.mkdir(mode=0o750)
        server = Server(place, free_port(), folder)
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()


if __name__ == "__main__":  # a server for benchmarks, until standard input ends
    with temporary_server() as running:
        sys.stdout.write(f"{running.url}\n")
        sys.stdout.flush()
        sys.stdin.read()
