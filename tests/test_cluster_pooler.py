"""PgBouncer in transaction mode between workers and PostgreSQL: it is refused with what to do, and nothing hangs."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from benchmarks.cluster_postgres import as_user, free_port
from heygen_async.bulk.cluster import Cluster, ClusterError, DatabaseLost

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no pgbouncer")


@contextmanager
def pooler(url: str, folder: Path, *settings: str) -> Iterator[str]:
    """Start a PgBouncer in transaction mode before a database, and yield its URL."""
    given, port = conninfo_to_dict(url), free_port()
    folder.chmod(0o755)  # another user reads it
    users, config = folder / "users.txt", folder / "pgbouncer.ini"
    users.write_text(f'"{given["user"]}" "{given["password"]}"\n')
    lines = [
        "[databases]",
        f"* = host={given['host']} port={given['port']}",
        "[pgbouncer]",
        "listen_addr = 127.0.0.1",
        f"listen_port = {port}",
        "unix_socket_dir =",
        "pool_mode = transaction",
        "auth_type = scram-sha-256",
        f"auth_file = {users}",
        *settings,
    ]
    config.write_text("\n".join(lines))
    for path in (users, config):
        path.chmod(0o644)
    process = subprocess.Popen(
        [*as_user(), PROGRAM, config], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield make_conninfo(url, host="127.0.0.1", port=str(port))
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError as error:
        return "unsupported startup parameter" in str(error)
    return True


@pytest.mark.parametrize(
    "settings", [(), ("ignore_startup_parameters = options",)], ids=["refuses settings", "ignores settings"]
)
async def test_a_pooler_that_keeps_no_settings_of_a_connection_is_refused_with_what_to_do(
    database_url: str, settings: tuple[str, ...]
) -> None:
    with tempfile.TemporaryDirectory() as folder, pooler(database_url, Path(folder), *settings) as url:
        _wait(lambda: answers(url))
        with pytest.raises(ClusterError, match="give them the address of PostgreSQL itself") as caught:
            async with Cluster(url):
                pass
    assert not isinstance(caught.value, DatabaseLost)
    assert "secret-word" not in str(caught.value)


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
