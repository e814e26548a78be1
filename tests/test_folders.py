"""Folders of a run: nothing is left of them, however it ends."""

import asyncio
import tempfile
import threading
from pathlib import Path

import pytest

from heygen_async.bulk import folders
from heygen_async.bulk.folders import check_writable, is_shared_folder, mark_shared, temporary_folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_temporary_folder_is_removed_with_everything_in_it(temporary: Path) -> None:
    async with temporary_folder() as folder:
        (folder / "a").mkdir()
        assert names_in(temporary) == [folder.name]
    assert not names_in(temporary)


async def test_a_folder_that_is_made_while_its_owner_is_cancelled_is_removed(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_making, may_go_on, was_made, make = threading.Event(), threading.Event(), threading.Event(), tempfile.mkdtemp

    def make_slowly(**options: str) -> str:
        is_making.set()
        assert may_go_on.wait(30)
        made = make(**options)
        was_made.set()
        return made

    async def use() -> None:
        async with temporary_folder():
            raise AssertionError("it was cancelled before")

    monkeypatch.setattr(tempfile, "mkdtemp", make_slowly)
    user = asyncio.create_task(use())
    assert await asyncio.to_thread(is_making.wait, 30)
    user.cancel()
    await asyncio.sleep(0)
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await user
    assert await asyncio.to_thread(was_made.wait, 30)
    assert not names_in(temporary)


async def test_a_folder_whose_owner_has_ended_before_is_not_made(temporary: Path) -> None:
    folder = folders._TemporaryFolder()
    folder.remove()
    with pytest.raises(FileNotFoundError):
        folder.make()
    assert not names_in(temporary)


async def test_a_check_that_a_folder_can_be_written_to_leaves_nothing(tmp_path: Path) -> None:
    await check_writable(tmp_path / "a" / "b")
    assert not names_in(tmp_path / "a" / "b")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        await check_writable(tmp_path / "file" / "c")


async def test_a_folder_is_the_shared_one_where_it_was_marked_as_that(tmp_path: Path) -> None:
    assert not await is_shared_folder(str(tmp_path / "out"))
    await mark_shared(str(tmp_path / "out"))
    assert await is_shared_folder(str(tmp_path / "out"))


@pytest.mark.parametrize("name", ["x" * 300, "/".join(["x"] * 3000)], ids=["name", "path"])
async def test_a_folder_that_cannot_be_looked_at_is_not_the_shared_one(tmp_path: Path, name: str) -> None:
    assert not await is_shared_folder(str(tmp_path / name))
