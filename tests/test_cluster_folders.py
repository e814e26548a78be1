"""Folders of outputs that are not mounted, cannot be written to, or have other numbers on other machines."""

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from attrs import evolve
from psycopg.types.json import Jsonb
from test_cluster import Stage, rows, staged

from heygen_async.bulk.cluster import ClusterError
from heygen_async.models import DubRow
from heygen_async.sandbox import SAMPLE_AUDIO


@pytest.fixture
async def stage(database_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(database_url, tmp_path) as one:
        yield one


def test_a_folder_that_this_machine_can_only_read_is_not_used():
    program = (
        "import asyncio, os, sys; from heygen_async.bulk.cluster.output_folders import check_usable; "
        "os.geteuid() or os.setuid(65534); asyncio.run(check_usable(sys.argv[1]))"  # root may write all
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, ".heygen-cluster").touch()
        Path(folder).chmod(0o555)
        command = [sys.executable, "-c", program, folder]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

    assert "UnusableFolder" in ran.stderr
    assert f"{folder} cannot be written to on this machine" in ran.stderr


async def _died_on_another_machine(stage: Stage, *, parts: int) -> None:
    """Store the row as a worker leaves it that dies once it has published the file, on a device with another number."""
    database = stage.cluster._database
    ((record,),) = await database.fetch("SELECT record FROM rows")
    record |= {"state": "completed", "written": ":".join(["999", *record["written"].split(":")[1:parts]])}
    if "captions" in record:
        record["captions"] = f"999:{record['captions'].partition(':')[2]}"
    await database.fetch(
        "UPDATE rows SET stage = 'download', version = version + 1, record = %(record)s", {"record": Jsonb(record)}
    )


@pytest.mark.parametrize(("parts", "captions"), [(3, False), (5, False), (3, True)])
async def test_a_file_that_a_worker_of_another_machine_has_published_is_that_of_its_row(
    stage: Stage, parts: int, captions: bool
) -> None:
    await stage.enqueue(rows(1), captions=captions)
    await stage.complete()
    files = stage.files()
    await _died_on_another_machine(stage, parts=parts)
    assert (await stage.complete()).runs[0].rows == {"done": 1}

    assert stage.files() == files
    assert "captions were not written" not in stage.everything()
    assert sum(stage.jobs().values()) == 1


def _with_output(stage: Stage, row: DubRow, kind: str) -> tuple[DubRow, dict[str, object]]:
    """Return a row with an output in the folder `out`, and options for it."""
    if kind == "folder of the run":
        return row, {}
    if kind == "folder of an output":
        return evolve(row, output=stage.folder / "out" / f"{row.key}.mp4"), {"output_dir": None}
    source = stage.folder / "new.mp3"
    source.write_bytes(SAMPLE_AUDIO.read_bytes())
    return evolve(row, audio=source), {}


KINDS_OF_OUTPUTS = pytest.mark.parametrize("kind", ["folder of the run", "folder of an output", "file to upload"])


@KINDS_OF_OUTPUTS
async def test_a_worker_without_the_shared_folder_ends_before_it_sends_or_writes_anything(
    stage: Stage, kind: str
) -> None:
    row, options = _with_output(stage, *rows(1), kind)
    await stage.enqueue([row], **options)
    mounted, unmounted = stage.folder / "out", stage.folder / "unmounted"
    mounted.rename(unmounted)
    async with stage.worker() as task:
        with pytest.raises(ClusterError, match="out is not the shared output folder on this machine; mount it"):
            async with asyncio.timeout(20):
                await task
    assert not mounted.exists()
    assert stage.sandbox.jobs == []

    unmounted.rename(mounted)
    assert (await stage.complete()).runs[0].rows == {"done": 1}
    assert stage.files() == {"row-1.mp4"}


async def test_an_output_is_checked_before_its_create_by_the_worker_after_one_without_the_shared_folder(
    stage: Stage,
) -> None:
    await stage.enqueue(rows(1))
    mark = stage.folder / "out" / ".heygen-cluster"
    mark.unlink()
    async with stage.worker() as task:
        await asyncio.wait([task], timeout=20)
    mark.touch()
    (stage.folder / "out" / "row-1.mp4").write_bytes(b"of somebody else")

    assert (await stage.complete()).runs[0].rows == {"failed": 1}
    assert stage.sandbox.jobs == []


@KINDS_OF_OUTPUTS
@pytest.mark.parametrize("is_done", [True, False])
async def test_rows_are_not_enqueued_where_the_folder_of_those_before_is_not_mounted(
    stage: Stage, kind: str, is_done: bool
) -> None:
    (row, options), (later, _) = (_with_output(stage, row, kind) for row in rows(2))
    await stage.enqueue([row], **options)
    if is_done:
        await stage.complete()
    mounted, unmounted = stage.folder / "out", stage.folder / "unmounted"
    mounted.rename(unmounted)
    with pytest.raises(ClusterError, match="out is not the shared output folder on this machine; mount it"):
        await stage.enqueue([row, later], **options)
    assert not mounted.exists()

    unmounted.rename(mounted)
    assert (await stage.enqueue([row, later], **options)).added == 1
    assert (await stage.complete()).runs[0].rows == {"done": 2}


async def test_a_folder_that_was_removed_is_used_once_it_is_marked_again(stage: Stage) -> None:
    await stage.enqueue(rows(1))
    await stage.complete()
    shutil.rmtree(stage.folder / "out")
    with pytest.raises(ClusterError, match=r"make it again, with an empty file \.heygen-cluster in it"):
        await stage.enqueue(rows(2)[1:])

    (stage.folder / "out").mkdir()
    (stage.folder / "out" / ".heygen-cluster").touch()
    await stage.enqueue(rows(2)[1:])
    await stage.complete()
    assert stage.files() == {"row-2.mp4"}
