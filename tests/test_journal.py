"""What a row has reached: the decision what to do next, and the file that keeps it."""

import asyncio
import gc
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from heygen_async import HeyGenError, InvalidRequest, RateLimited, TransportError
from heygen_async._ids import CLOCK_ERROR, KEY_SECONDS, check_key
from heygen_async.bulk.attempt_keys import attempt_key
from heygen_async.bulk.identity import FileInfo
from heygen_async.bulk.journal import Journal
from heygen_async.bulk.journal_claim import Claim
from heygen_async.bulk.journal_file import JournalInUse
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.bulk.program import RetryDelays, Step, after_create, next_step
from heygen_async.bulk.promotion import read_reviews
from heygen_async.bulk.record import Record, State
from heygen_async.bulk.store import Entry, JournalError, Problem
from heygen_async.models import DubRow

ORIGIN = "https://api.heygen.com"
DAY = 24 * 3600.0
PREPARED = PreparedRow(
    row=DubRow("https://example.com/v.mp4", "https://example.com/a.mp3", key="a"),
    target=Path("a.mp4"),
    captions=False,
    files={},
    missing={},
    seconds=None,
    entry=Entry(key="a", inputs="in", number=1, place="row 1"),
)
ROW = Record(key="a", inputs="in", target="a.mp4")
SENT = ROW.sending("body", None, now=1000.0)


def _next(record: Record, now: float = 1000.0, *, max_attempts: int = 3, has_file: bool = False) -> Step:
    return next_step(PREPARED, record, now, max_attempts=max_attempts, has_file=has_file)


# The decision


@pytest.mark.parametrize(
    ("record", "step"),
    [
        pytest.param(ROW, Step.INTEND, id="new"),
        pytest.param(SENT, Step.CREATE, id="cut off while it was sent"),
        pytest.param(SENT.accepted("ls_1"), Step.WAIT, id="there is a job"),
        pytest.param(SENT.accepted("ls_1").completed(1.0), Step.DOWNLOAD, id="the job is done"),
        pytest.param(evolve(SENT.accepted("ls_1").completed(1.0), target=None), Step.FINISH, id="no file is wanted"),
        pytest.param(SENT.accepted("ls_1").completed(1.0).done(), Step.DOWNLOAD, id="the file was taken away"),
        pytest.param(SENT.accepted("ls_1").failed("server", is_final=False), Step.RENEW, id="failed, may pass"),
        pytest.param(SENT.accepted("ls_1").failed("no face", is_final=True), Step.GIVE_UP, id="failed for good"),
        pytest.param(SENT.not_sent(), Step.INTEND, id="refused"),
    ],
)
def test_the_record_of_a_row_decides_the_next_step(record: Record, step: Step) -> None:
    assert _next(record) is step


def test_a_finished_row_whose_file_exists_needs_nothing() -> None:
    assert _next(SENT.accepted("ls_1").completed(1.0).done(), has_file=True) is Step.NOTHING


def test_a_create_is_repeated_only_while_the_server_remembers_its_key() -> None:
    assert _next(SENT, 1000 + KEY_SECONDS) is Step.CREATE
    assert _next(SENT, 1000 + KEY_SECONDS + 1) is Step.SEARCH


def test_a_clock_that_was_set_back_is_not_trusted() -> None:
    assert _next(SENT, 1000 - CLOCK_ERROR) is Step.CREATE
    assert _next(SENT, 1000 - CLOCK_ERROR - 1) is Step.SEARCH


def test_a_search_without_a_result_makes_the_key_good_for_another_day() -> None:
    record = SENT.not_found(1000 + 2 * DAY)

    assert _next(record, 1000 + 2 * DAY) is Step.CREATE
    assert record.attempt_key == SENT.attempt_key


def test_an_item_of_a_batch_that_was_not_found_is_sent_as_if_for_the_first_time() -> None:
    record = SENT.in_batch("batch", 3).not_found(1000 + 2 * DAY)

    assert _next(record) is Step.INTEND
    assert (record.batch, record.item) == (None, None)


def test_the_next_attempt_has_a_key_of_its_own() -> None:
    failed = SENT.accepted("ls_1").failed("server", is_final=False)
    again = failed.renewed().sending("body", None, now=2000.0)

    assert again.attempt_key == attempt_key("a", "in", 2) != SENT.attempt_key
    assert (again.earlier, again.sent_at, again.callback_id) == (("ls_1",), 2000.0, again.attempt_key)


def test_attempts_are_counted() -> None:
    record = SENT
    for number in range(1, 3):
        record = record.accepted(f"ls_{number}").failed("server", is_final=False)
        assert _next(record) is Step.RENEW
        record = record.renewed().sending("body", None, now=0.0)
    record = record.accepted("ls_3").failed("server", is_final=False)

    assert _next(record) is Step.GIVE_UP
    assert _next(record, max_attempts=4) is Step.RENEW


@pytest.mark.parametrize(
    ("first", "second", "attempt_after_refusal"),
    [
        pytest.param("link.monday", "link.monday", 1, id="the same"),
        pytest.param("link.monday", "link.tuesday", 2, id="signed again"),
        pytest.param("link", "link.tuesday", 2, id="signed now"),
        pytest.param("link.monday", "link", 2, id="not signed any more"),
    ],
)
def test_a_link_that_was_signed_again_goes_under_another_key_only_after_a_refusal(
    first: str, second: str, attempt_after_refusal: int
) -> None:
    unsent = ROW.sending(first, None, now=0.0).not_sent()
    refused = unsent.stopped(ValueError("400 download_failed"))

    assert unsent.sending(second, None, now=0.0).attempt == 1
    assert refused.sending(second, None, now=0.0).attempt == attempt_after_refusal


def test_another_body_goes_under_another_key_even_after_a_refusal() -> None:
    refused = SENT.not_sent()

    assert refused.sending("body", None, now=0.0).attempt_key == SENT.attempt_key
    assert refused.sending("other", None, now=0.0).attempt_key == attempt_key("a", "in", 2)


@pytest.mark.parametrize(
    ("error", "attempt"),
    [
        (RateLimited("wait", status=429, outcome="rejected"), 1),
        (TransportError("no connection", outcome="not_sent"), 1),
        (InvalidRequest("no", status=400, code="download_failed", outcome="rejected"), 2),
    ],
    ids=str,
)
def test_only_a_create_that_was_refused_for_good_goes_under_another_key_if_the_caller_retries_it(
    error: HeyGenError, attempt: int
) -> None:
    sent = Record(key="a", inputs="in").sending("body", None, now=0.0)
    again = after_create(sent, error, RetryDelays()).forgiving()

    assert again.sending("body", None, now=0.0).attempt_key == attempt_key("a", "in", attempt)


def test_what_may_have_been_sent_is_not_sent_as_new() -> None:
    with pytest.raises(ValueError, match="submitting"):
        SENT.sending("body", None, now=0.0)


class Server:
    """Keeps keys for a day and jobs for ever."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[float, str]] = {}
        self.bodies: dict[str, set[str]] = {}
        self.jobs: dict[str, tuple[str, float, str]] = {}
        self.ids = count(1)

    def create(self, key: str, body: str, callback_id: str, now: float) -> str:
        self.bodies.setdefault(key, set()).add(body)
        kept = self.keys.get(key)
        if kept is not None and now - kept[0] < DAY:
            return kept[1]
        job = f"ls_{next(self.ids)}"
        self.jobs[job] = (callback_id, now, "running")
        self.keys[key] = (now, job)
        return job

    def search(self, record: Record) -> str | None:
        for job, (callback_id, made_at, _) in self.jobs.items():
            if callback_id == record.callback_id and made_at >= (record.sent_at or 0) and job not in record.earlier:
                return job
        return None

    def end(self, job: str, status: str) -> str:
        """Let a job end, unless it has ended already; return how it did."""
        callback_id, made_at, before = self.jobs[job]
        self.jobs[job] = (callback_id, made_at, status if before == "running" else before)
        return self.jobs[job][2]


class RowMachine(RuleBasedStateMachine):
    """A row is worked on, is cut off anywhere, and is taken up again at any later time."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.record = ROW  # what the journal has
        self.now = 1000.0

    @rule(
        seconds=st.sampled_from([0.0, 0.0, 3600.0, DAY - 700, DAY, 3 * DAY]),
        fault=st.sampled_from(["", "cut off before", "cut off after", "refused"]),
        fails=st.booleans(),
    )
    def work(self, seconds: float, fault: str, fails: bool) -> None:
        self.now += seconds
        self.step(fault, fails=fails)

    def step(self, fault: str = "", *, fails: bool = False) -> Step:
        step = _next(self.record, self.now)
        match step:
            case Step.INTEND:
                self.record = self.record.sending("body", None, self.now)
                self.send(fault, was_fresh=True)
            case Step.CREATE:
                self.send(fault, was_fresh=False)
            case Step.SEARCH:
                found = self.server.search(self.record)
                self.record = self.record.accepted(found) if found else self.record.not_found(self.now)
            case Step.WAIT:
                self.end("failed" if fails else "completed")
            case Step.RENEW:
                self.record = self.record.renewed()
            case Step.DOWNLOAD:
                self.record = self.record.done()
        return step

    def send(self, fault: str, *, was_fresh: bool) -> None:
        record = self.record
        if fault == "cut off before":
            return
        if fault == "refused":
            self.record = record.not_sent() if was_fresh else record
            return
        job = self.server.create(record.attempt_key or "", record.body or "", record.callback_id or "", self.now)
        if fault != "cut off after":
            self.record = record.accepted(job)

    def end(self, status: str) -> None:
        assert self.record.lipsync_id is not None
        status = self.server.end(self.record.lipsync_id, status)
        self.record = self.record.completed(1.0) if status == "completed" else self.record.failed("", is_final=False)

    @invariant()
    def at_most_one_job_costs_money(self) -> None:
        assert sum(status != "failed" for _, _, status in self.server.jobs.values()) <= 1

    @invariant()
    def no_key_goes_out_with_two_bodies(self) -> None:
        assert all(len(bodies) == 1 for bodies in self.server.bodies.values())

    def teardown(self) -> None:
        for _ in range(12):
            if self.step() in {Step.NOTHING, Step.GIVE_UP}:
                break
            self.record = evolve(self.record, target=None) if self.record.state is State.DONE else self.record
        assert self.record.state in {State.DONE, State.FAILED}
        made = [status for _, _, status in self.server.jobs.values()]
        if self.record.state is State.DONE:
            assert made == ["failed"] * (len(made) - 1) + ["completed"]
            assert len(made) <= 3
        else:
            assert made == ["failed"] * 3


TestRowMachine = RowMachine.TestCase
TestRowMachine.settings = settings(max_examples=150, stateful_step_count=12)


# The file


async def _open(path: Path | None, origin: str = ORIGIN) -> Journal:
    journal = Journal(path, origin=origin)
    await journal.open()
    return journal


def _entry(key: str, number: int = 1, **changes: object) -> Entry:
    entry = Entry(key=key, inputs=f"inputs of {key}", number=number, place=f"line {number}", target=f"{key}.mp4")
    return evolve(entry, **changes)


async def test_a_record_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    journal = await _open(path)
    (record,) = await journal.admit([_entry("a")])
    assert isinstance(record, Record)
    saved = record.uploaded("as_1", None).sending("body", "a", 5.5, estimate=0.25).in_batch("b", 7).accepted("ls_1")
    saved = evolve(saved, earlier=("ls_0",), is_final=True, wait_seconds=1.5)
    await journal.save(saved)
    await journal.aclose()

    journal = await _open(path)
    (found,) = await journal.admit([_entry("a")])
    await journal.aclose()

    assert found == saved


async def test_a_journal_whose_opening_was_cancelled_ends_cleanly(tmp_path: Path) -> None:
    first, again = Journal(tmp_path / "run.sqlite", origin=ORIGIN), Journal(tmp_path / "run.sqlite", origin=ORIGIN)
    opening = asyncio.create_task(first.open())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    await again.open()  # it is not in use any more
    assert await again.fact("unclean") is None
    await again.aclose()


@pytest.mark.parametrize("ends_cleanly", [True, False])
async def test_the_list_is_read_again_for_another_unclean_end(tmp_path: Path, ends_cleanly: bool) -> None:
    path = tmp_path / "run.sqlite"
    await (await _open(path)).aclose()
    with closing(sqlite3.connect(path)) as database, database:
        facts = [("unclean", "1.5 9.5"), ("open", "7.5")]
        database.executemany("INSERT INTO facts VALUES (?, ?)", facts[: 1 if ends_cleanly else 2])

    journal = await _open(path)
    assert await journal.fact("unclean") == ("1.5 9.5" if ends_cleanly else "1.5")
    await journal.aclose()


async def test_a_second_run_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    journal = await _open(path)
    with pytest.raises(JournalInUse, match=r"run\.sqlite is in use"):
        await _open(path)
    await journal.aclose()

    await (await _open(path)).aclose()


async def test_another_process_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    journal = await _open(path)
    code = f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0).execute('SELECT * FROM facts')"
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)
    await journal.aclose()

    assert "database is locked" in done.stderr


def _is_free(path: Path, origin: str = ORIGIN) -> bool:
    """Return whether another process can open the journal."""
    code = f"""
import asyncio, pathlib
from heygen_async.bulk.journal import Journal
journal = Journal(pathlib.Path({str(path)!r}), origin={origin!r})
async def use():
    await journal.open()
    await journal.aclose()
asyncio.run(use())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode or "JournalInUse" in done.stderr, done.stderr
    return not done.returncode


def _copy(path: Path) -> None:
    shutil.copy(path, path.with_name("backup.sqlite"))


async def _open_again(path: Path) -> None:
    with pytest.raises(JournalInUse):
        await _open(path)


async def _review(path: Path) -> None:
    with pytest.raises(JournalInUse):
        await read_reviews(path)


async def _open_link(path: Path) -> None:
    path.with_name("link.sqlite").symlink_to(path)
    await _open_again(path.with_name("link.sqlite"))


async def _open_hard_link(path: Path) -> None:
    path.with_name("hard.sqlite").hardlink_to(path)
    await _open_again(path.with_name("hard.sqlite"))


async def _fail_to_open(path: Path) -> None:
    with pytest.raises(JournalInUse):
        await _open(path, "https://elsewhere.example.com")


@pytest.mark.parametrize("use", [_open_again, _review, _open_link, _open_hard_link, _fail_to_open])
@pytest.mark.parametrize("is_new", [True, False])
async def test_an_attempt_to_open_a_journal_again_does_not_free_it_for_other_processes(
    tmp_path: Path, use: Callable[[Path], Awaitable[None]], is_new: bool
) -> None:
    path = tmp_path / "run.sqlite"
    if not is_new:
        await (await _open(path)).aclose()
    journal = await _open(path)
    await use(path)
    code = f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0).execute('SELECT * FROM facts')"
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)
    await journal.aclose()

    assert "database is locked" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no locks of a descriptor")
@pytest.mark.parametrize("is_new", [True, False])
async def test_a_backup_of_an_open_journal_does_not_free_it_for_other_processes(tmp_path: Path, is_new: bool) -> None:
    path = tmp_path / "run.sqlite"
    if not is_new:
        await (await _open(path)).aclose()
    journal = await _open(path)
    await asyncio.to_thread(_copy, path)

    assert not await asyncio.to_thread(_is_free, path)
    await journal.save(evolve(ROW, state=State.SUBMITTING))  # nor has the other process touched it
    await journal.aclose()
    assert await asyncio.to_thread(_is_free, path)


_FORK = """
import asyncio, os, pathlib, sys
from heygen_async.bulk.journal import Journal
began, begin = os.pipe()
async def use():
    journal = Journal(pathlib.Path(sys.argv[1]), origin="x")
    await journal.open()
    if not os.fork():
        os.write(begin, b"1")
        os.read(0, 1)
        os._exit(0)
    os.read(began, 1)
    os._exit(0)
asyncio.run(use())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_child_that_outlives_its_run_does_not_keep_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    with subprocess.Popen([sys.executable, "-c", _FORK, str(path)], stdin=subprocess.PIPE) as run:
        assert run.wait() == 0

        assert _is_free(path, origin="x")


async def test_an_opening_that_fails_leaves_the_journal_free(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    await (await _open(path)).aclose()
    with pytest.raises(JournalError, match="belongs to"):
        await _open(path, "https://elsewhere.example.com")

    await (await _open(path)).aclose()


def test_a_claim_that_nobody_refers_to_is_free(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    first = Claim(path)
    assert first.take(create=True)
    assert not Claim(path).take()
    del first
    gc.collect()

    assert Claim(path).take()


async def test_a_journal_of_another_origin_is_refused(tmp_path: Path) -> None:
    await (await _open(tmp_path / "run.sqlite", "http://127.0.0.1:8080")).aclose()

    with pytest.raises(JournalError, match=r"belongs to http://127\.0\.0\.1:8080"):
        await _open(tmp_path / "run.sqlite")


async def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    text, other = tmp_path / "rows.csv", tmp_path / "other.sqlite"
    text.write_text("video,audio\n" * 100)
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE things (name)")
    database.close()
    for path in (text, other):
        before = path.read_bytes()
        with pytest.raises(JournalError):
            await _open(path)

        assert path.read_bytes() == before


async def test_a_journal_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    await (await _open(path)).aclose()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()

    with pytest.raises(JournalError, match=r"another version .*format 99.*use another journal"):
        await _open(path)


@pytest.mark.parametrize("edit", ["state = 'Done'", "state = NULL", "earlier = ''"])
async def test_a_row_that_somebody_has_edited_so_that_it_cannot_be_read_is_named(tmp_path: Path, edit: str) -> None:
    path = tmp_path / "run.sqlite"
    journal = await _open(path)
    await journal.save(Record(key="ep-1", inputs="i"))
    await journal.aclose()
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE rows SET {edit}")
    database.close()

    journal = await _open(path)
    with pytest.raises(JournalError, match=r"run.sqlite cannot be used: the row ep-1 cannot be read"):
        await journal.records(["ep-1"])
    await journal.aclose()


async def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"the folder of .*nowhere.* does not exist"):
        await _open(tmp_path / "nowhere" / "run.sqlite")


async def test_a_journal_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="is a folder: name a file in it"):
        await _open(tmp_path)


async def test_two_rows_with_one_key_are_named_both() -> None:
    journal = await _open(None)
    _, second = await journal.admit([_entry("a", 1), _entry("a", 2)])
    await journal.aclose()

    assert isinstance(second, Problem)
    assert str(second) == "line 2: duplicate of line 1: the same key a"


async def test_two_rows_with_one_output_are_named_both() -> None:
    journal = await _open(None)
    _, second = await journal.admit(
        [
            _entry("a", 1, target="x.mp4", claims=("output x.mp4",)),
            _entry("b", 2, target="X.mp4", claims=("output x.mp4",)),
        ]
    )
    await journal.aclose()

    assert str(second) == "line 2: duplicate of line 1: the same output X.mp4"


async def test_a_row_may_be_admitted_again_and_an_old_runs_claims_are_void(tmp_path: Path) -> None:
    for key in ("a", "b"):
        journal = await _open(tmp_path / "run.sqlite")
        for _ in range(2):
            (record,) = await journal.admit([_entry(key, claims=("output x.mp4",))])
            assert isinstance(record, Record)
        await journal.aclose()


# Attempt keys


@pytest.mark.parametrize("row_key", ["a", "a.2", "k" * 200, "k" * 250, "A-Z_0-9:."], ids=len)
def test_an_attempt_key_is_one_that_the_api_takes_and_shows_the_row(row_key: str) -> None:
    key = attempt_key(row_key, "0" * 64, 12)

    assert check_key(key) == key
    assert key.startswith(f"{row_key[:200]}.")


def test_an_attempt_key_is_the_same_for_the_same_row_and_different_for_any_other() -> None:
    same = {attempt_key("ep-1", "french", 1) for _ in range(2)}
    others = {
        attempt_key("ep-1", "german", 1),
        attempt_key("ep-1", "french", 2),
        attempt_key("ep-2", "french", 1),
        attempt_key("ep-1.2", "french", 1),
        attempt_key("k" * 240 + "1", "french", 1),
        attempt_key("k" * 240 + "2", "french", 1),
    }

    assert len(same) == 1
    assert len(others) == 6
    assert not same & others


def test_the_attempt_key_of_one_row_is_no_key_of_another() -> None:
    first = attempt_key("ep", "in", 2)

    assert attempt_key(first, "in", 1) != first


@pytest.mark.parametrize("keys", [("a", "a.2"), ("a.2", "a"), ("x.y", "x.y.17")])
async def test_row_keys_that_look_like_attempts_of_other_rows_are_only_keys(keys: tuple[str, str]) -> None:
    journal = await _open(None)
    admitted = await journal.admit([_entry(key, number) for number, key in enumerate(keys)])
    await journal.aclose()

    sent = {
        record.renewed().sending("b", None, 0.0).attempt_key for record in admitted if isinstance(record, Record)
    } | {record.sending("b", None, 0.0).attempt_key for record in admitted if isinstance(record, Record)}
    assert len(sent) == 4


async def test_inputs_that_changed_after_something_was_sent_need_a_new_key() -> None:
    journal = await _open(None)
    (record,) = await journal.admit([_entry("a")])
    assert isinstance(record, Record)
    (same,) = await journal.admit([_entry("a", inputs="corrected")])
    assert isinstance(same, Record)  # nothing was sent yet
    await journal.save(same.sending("body", "a", 0.0))
    (changed,) = await journal.admit([_entry("a", inputs="other")])
    await journal.aclose()

    assert isinstance(changed, Problem)
    assert "give the row a new key" in changed.message


async def test_a_row_that_was_refused_may_be_mended_under_its_key() -> None:
    journal = await _open(None)
    (record,) = await journal.admit([_entry("a")])
    assert isinstance(record, Record)
    await journal.save(record.sending("body", "a", 0.0).not_sent())
    (corrected,) = await journal.admit([_entry("a", inputs="corrected")])
    await journal.aclose()

    assert isinstance(corrected, Record)
    assert corrected.sending("other", None, 1.0).attempt_key == attempt_key("a", "corrected", 2)


async def test_a_presigned_link_in_an_error_is_written_without_its_query(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    journal = await _open(path)
    link = "https://files.example.com/a.mp4?X-Amz-Signature=SECRET"
    await journal.save(ROW.stopped(ValueError(f"cannot fetch '{link}' now")))
    (found,) = await journal.rows(-1, 10)
    await journal.aclose()

    assert found.error == "cannot fetch 'https://files.example.com/a.mp4?...' now"
    assert b"SECRET" not in path.read_bytes()


async def test_a_write_that_was_begun_is_carried_out_though_its_task_is_cancelled(tmp_path: Path) -> None:
    journal = await _open(tmp_path / "run.sqlite")
    gate = threading.Event()
    held = asyncio.ensure_future(journal.in_turn(gate.wait))
    saving = asyncio.ensure_future(journal.save(ROW))
    await asyncio.sleep(0)
    for task in (saving, held):
        task.cancel()
    await asyncio.wait([saving, held])
    gate.set()

    found = await journal.rows(-1, 10)
    await journal.aclose()

    assert saving.cancelled()
    assert [record.key for record in found] == ["a"]


async def test_saves_that_wait_for_the_disk_share_one_transaction(tmp_path: Path) -> None:
    journal = await _open(tmp_path / "run.sqlite")
    statements: list[str] = []
    await journal.in_turn(lambda: journal._file.db.set_trace_callback(statements.append))
    gate = threading.Event()
    held = asyncio.ensure_future(journal.in_turn(gate.wait))
    saves = [asyncio.ensure_future(journal.save(evolve(ROW, key=f"k{number}", number=number))) for number in range(50)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(held, *saves)
    found = await journal.rows(-1, 100)
    await journal.aclose()

    assert len(found) == 50
    assert [one for one in statements if one.startswith("BEGIN")] == ["BEGIN IMMEDIATE"]


async def test_nothing_is_half_saved(tmp_path: Path) -> None:
    journal = await _open(tmp_path / "run.sqlite")
    with pytest.raises(JournalError):
        await journal.save(ROW, evolve(ROW, key="b", inputs=object()))
    found = await journal.rows(-1, 10)
    await journal.aclose()

    assert found == []


async def test_jobs_of_all_attempts_are_known() -> None:
    journal = await _open(None)
    await journal.save(evolve(SENT.accepted("ls_2"), earlier=("ls_1",)))
    known = await journal.known_jobs(["ls_1", "ls_2", "ls_3"])
    await journal.aclose()

    assert known == {"ls_1", "ls_2"}


async def test_the_estimate_is_of_all_jobs_of_all_runs(tmp_path: Path) -> None:
    for key in ("a", "b"):
        journal = await _open(tmp_path / "run.sqlite")
        await journal.save(evolve(ROW, key=key).sending("", "", 0.0, estimate=1.25))
        estimate = await journal.estimate()
        await journal.aclose()

    assert estimate == 2.5


async def test_uploads_and_facts_of_files_are_remembered(tmp_path: Path) -> None:
    facts = {"/a.mp4": FileInfo("10:20", "d", 1.5)}
    journal = await _open(tmp_path / "run.sqlite")
    await journal.keep_asset("digest", "as_1")
    await journal.keep_file_info(facts)
    assert await journal.asset("digest") == "as_1"
    assert await journal.file_info(["/a.mp4", "/b.mp4"]) == facts
    await journal.forget_assets(["as_1"])

    assert await journal.asset("digest") is None
    await journal.aclose()


async def test_rows_come_in_their_order_page_by_page() -> None:
    journal = await _open(None)
    await journal.admit([_entry(f"k{9 - number}", number) for number in range(1, 8)])
    first = await journal.rows(0, 4)
    rest = await journal.rows(first[-1].number, 4)
    await journal.aclose()

    assert [record.number for record in first + rest] == [1, 2, 3, 4, 5, 6, 7]
