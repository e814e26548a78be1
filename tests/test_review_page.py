"""The run page in a real browser: watched, decided, undone, filtered, reloaded, killed and opened again, and live."""

import asyncio
import contextlib
import signal

import orjson
import pytest
from attrs import evolve
from cli_sandbox import COMMAND
from review_stage import (
    browser,
    failed,
    finished,
    happens,
    keep_sources,
    local_row,
    needs_browser,
    visited,
    with_captions,
    write_journal,
)

from heygen_async.bulk.journal import Journal, existing_journal
from heygen_async.bulk.record import Record, State
from heygen_async.models import DubRow
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO, Sandbox

pytestmark = [needs_browser, pytest.mark.timeout(120)]

REFUSED = "409 (Conflict)"
LOST = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET")
READY = """() => ["source", "result"].every((id) => document.getElementById(id).readyState >= 3)"""
TIMES = """() => ["source", "result"].map((id) => document.getElementById(id).currentTime)"""


@pytest.fixture
async def shown(tmp_path, out):
    """A journal with five rows of a manifest: three to review, one failed, one that has not started."""
    path = tmp_path / "run.sqlite"
    done = [with_captions(finished(1, out)), finished(2, out), finished(3, out)]
    waiting = Record(key="row-5", inputs="i", number=5, place="line 6")
    await write_journal(path, [*done, failed(4, "No face was found in the video", is_final=True), waiting])
    rows = {f"row-{number}": local_row(number, tmp_path) for number in range(1, 6)}
    await keep_sources(path, list(rows.values()))
    async with visited(path, rows) as visit, browser(expected=(REFUSED,)) as page:
        await page.goto(visit.url)
        await happens(page, READY)
        yield visit, page


async def counts(page):
    """Return the counts of the filters, by name."""
    return dict(
        await page.evaluate(
            "() => [...document.querySelectorAll('#filters button')].map((one) => "
            "[one.dataset.category, Number(one.querySelector('b').textContent.replace(',', ''))])"
        )
    )


async def title(page):
    return await page.text_content("#title")


async def reviews(visit):
    return {review.key: (review.decision, review.note) for review in await visit.journal.reviews()}


async def press(page, *keys):
    for key in keys:
        await page.keyboard.press(key)


async def told(page, words):
    """Wait until the page says *words* about the last action."""
    await happens(page, "(words) => document.getElementById('toast').textContent.includes(words)", words)


async def is_chosen(page, name):
    """Wait until a row is chosen and can be decided on."""
    await happens(page, "(name) => document.getElementById('title').textContent === name", name)


async def lists(page, *names):
    """Wait until the list shows these rows."""
    shown = "() => [...document.querySelectorAll('.list .row:not([hidden]) b')].map((one) => one.textContent)"
    await happens(page, f"(names) => String(({shown})()) === String(names)", names)


async def test_a_search_that_grows_and_shrinks_finds_what_a_new_one_would(shown):
    _, page = shown
    await press(page, "f", "f", "f", "f", "f", "/")
    await page.keyboard.type("epi")
    await lists(page, *(f"Episode {number}" for number in range(1, 6)))
    await page.keyboard.type("sode row-4")
    await lists(page, "Episode 4")
    await press(page, "Backspace")
    await page.keyboard.type("2")
    await lists(page, "Episode 2")
    await press(page, "Home")
    await page.keyboard.type("line 3 ")
    await lists(page, "Episode 2")
    await press(page, "Control+A")
    await page.keyboard.type("LINE")
    await lists(page, *(f"Episode {number}" for number in range(1, 6)))


# Watching


async def test_both_videos_play_at_the_same_moment_with_the_sound_of_one(shown):
    _, page = shown
    await press(page, "Space")
    await happens(page, f"() => {{ const [a, b] = ({TIMES})(); return a > 0.3 && Math.abs(a - b) < 0.2 }}")
    muted = "() => ['source', 'result'].map((id) => document.getElementById(id).muted)"
    assert await page.evaluate(muted) == [True, False]
    await press(page, "1")
    assert await page.evaluate(muted) == [False, True]
    await press(page, "2")
    assert await page.evaluate(muted) == [True, False]
    await press(page, "Space")
    await happens(page, "() => ['source', 'result'].every((id) => document.getElementById(id).paused)")


async def test_seeking_moves_both_videos(shown):
    _, page = shown
    await press(page, "Shift+ArrowRight", "Shift+ArrowRight")
    await happens(page, "() => ['source', 'result'].every((id) => document.getElementById(id).currentTime === 2)")
    await press(page, "ArrowLeft")
    await happens(page, "() => ['source', 'result'].every((id) => document.getElementById(id).currentTime === 0)")


async def test_the_speed_is_that_of_both_videos_and_is_kept(shown):
    _, page = shown
    rates = "() => ['source', 'result'].map((id) => document.getElementById(id).playbackRate)"
    await press(page, *[">"] * 9)
    assert await page.evaluate(rates) == [2, 2]
    await press(page, "<")
    assert await page.evaluate(rates) == [1.75, 1.75]
    await press(page, "j")
    await happens(page, READY)
    assert await page.evaluate(rates) == [1.75, 1.75]


async def test_captions_are_a_track_that_can_be_switched_off(shown):
    _, page = shown
    cues = "() => [...(document.getElementById('result').textTracks[0]?.activeCues ?? [])].map((cue) => cue.text)"
    await press(page, "Shift+ArrowRight")
    await happens(page, f"() => ({cues})().length === 1")
    assert await page.evaluate(cues) == ["Hello <b>there</b>"]
    mode = "() => document.getElementById('result').textTracks[0].mode"
    await press(page, "c")
    assert await page.evaluate(mode) == "disabled"
    await press(page, "c")
    assert await page.evaluate(mode) == "showing"


async def test_a_source_that_begins_later_is_shown_from_there(tmp_path, out):
    path = tmp_path / "run.sqlite"
    await write_journal(path, [finished(1, out)])
    row = local_row(1, tmp_path, start_time=1.5, end_time=4.0)
    await keep_sources(path, [row])
    async with visited(path, {"row-1": row}) as visit, browser() as page:
        await page.goto(visit.url)
        await happens(page, READY)
        await happens(page, "() => document.getElementById('source').currentTime === 1.5")
        await press(page, "Shift+ArrowRight")
        await happens(page, "() => document.getElementById('source').currentTime === 2.5")


async def test_a_source_by_url_is_loaded_from_its_own_host_and_nothing_else_is(tmp_path, out):
    path, url = tmp_path / "run.sqlite", "https://cdn.invalid/clip.mp4?signature=1"
    await write_journal(path, [finished(1, out)])
    row = DubRow(url, "https://example.com/a.mp3", key="row-1")
    async with visited(path, {"row-1": row}) as visit, browser() as page:
        requests = []
        page.on("request", lambda request: requests.append((request.url, request.headers.get("referer"))))
        await page.route("https://cdn.invalid/**", lambda route: route.fulfill(path=str(SAMPLE_VIDEO)))
        await page.goto(visit.url)
        await happens(page, READY)
    assert {one for one in requests if not one[0].startswith(visit.url)} == {(url, None)}


async def test_a_failed_row_says_why_and_what_to_do(shown):
    _, page = shown
    await page.click("#filters [data-category=failed]")
    assert await page.text_content("#problem-reason") == "No face was found in the video"
    assert "change the video" in await page.text_content("#problem-advice")
    assert await page.is_hidden("#videos")
    assert await page.is_disabled("#approve")
    await press(page, "a", "r")
    assert await page.is_hidden("#note-form")


async def test_a_result_that_is_gone_says_so_on_its_row(shown, out):
    visit, page = shown
    (out / "row-2.mp4").unlink()
    await page.goto(visit.url)
    await happens(page, READY)
    await press(page, "j")
    await is_chosen(page, "Episode 2")
    gone = "() => document.querySelector('#result-box .frame-text').textContent === 'The file is gone.'"
    await happens(page, gone)
    assert "downloaded again" in await page.text_content("#problem-advice")
    assert await page.text_content("#badge") == "file missing"


async def test_a_row_of_the_list_has_state_title_length_cost_and_the_time_in_each_step(tmp_path, out):
    path = tmp_path / "run.sqlite"
    await write_journal(path, [finished(1, out), failed(2, "No face")])
    row = local_row(1, tmp_path)
    await keep_sources(path, [row])
    async with visited(path, {"row-1": row}) as visit, browser(width=1920) as page:
        await page.goto(visit.url)
        await page.wait_for_selector(".list .row")
        await page.click("#filters [data-category=all]")
        await lists(page, "Episode 1", "row-2")
        first, second = [(await line.inner_text()).split("\n") for line in await page.query_selector_all(".list .row")]
        assert first == ["Episode 1", "row-1 · line 2", "0:04", "$0.13", "31.6 s", "0.5 s", "0.1 s", "30.0 s", "1.0 s"]
        assert second == ["row-2", "failed · line 3"]
        assert await page.get_attribute(".list .steps", "title") == (
            "upload 0.5 s, submit 0.1 s, wait 30.0 s, download 1.0 s"
        )


@pytest.mark.parametrize(("after", "before"), [("j", "k"), ("ArrowDown", "ArrowUp")])
async def test_keys_go_to_the_next_row_and_back_and_stop_at_both_ends(shown, after, before):
    _, page = shown
    await press(page, before)
    await is_chosen(page, "Episode 1")
    await press(page, after)
    await is_chosen(page, "Episode 2")
    await press(page, *[after] * 3)
    await is_chosen(page, "Episode 3")
    await press(page, before)
    await is_chosen(page, "Episode 2")


async def test_a_row_that_is_chosen_is_in_sight_in_a_long_list(tmp_path):
    path = tmp_path / "run.sqlite"
    many = [Record(key=f"row-{number}", inputs="i", number=number, state=State.FAILED) for number in range(1, 201)]
    await write_journal(path, many)
    in_sight = """(name) => {
      const list = document.getElementById("list").getBoundingClientRect()
      const line = document.querySelector(".list .row[aria-selected=true]:not([hidden])")
      const { top, bottom } = line.getBoundingClientRect()
      return line.querySelector("b").textContent === name && top >= list.top && bottom <= list.bottom
    }"""
    async with visited(path) as visit, browser() as page:
        await page.goto(visit.url)
        await page.wait_for_selector(".list .row")
        await press(page, *["j"] * 60)
        await happens(page, in_sight, "row-61")
        await press(page, *["k"] * 55)
        await happens(page, in_sight, "row-6")
        await page.click("#search")
        await page.keyboard.type("row-200")
        await lists(page, "row-200")
        await page.evaluate("() => { document.getElementById('search').value = '' }")
        await press(page, "Enter", "k")
        await happens(page, in_sight, "row-199")


# Deciding


async def test_rows_are_approved_and_rejected_with_the_keyboard_alone(shown):
    visit, page = shown
    await press(page, "a")
    await is_chosen(page, "Episode 2")
    assert await reviews(visit) == {"row-1": ("approved", "")}
    await press(page, "r")
    await page.keyboard.type("the lips are late")
    await press(page, "Enter")
    await is_chosen(page, "Episode 3")
    assert await reviews(visit) == {"row-1": ("approved", ""), "row-2": ("rejected", "the lips are late")}
    assert await counts(page) == {"all": 5, "review": 1, "approved": 1, "rejected": 1, "failed": 1, "running": 1}


async def test_a_rejection_can_be_cancelled(shown):
    visit, page = shown
    await press(page, "r")
    await page.keyboard.type("ja")
    await press(page, "Escape", "j")
    await is_chosen(page, "Episode 2")
    assert await reviews(visit) == {}


async def test_decisions_are_undone_one_after_the_other_after_a_reload_too(shown):
    visit, page = shown
    await press(page, "a")
    await is_chosen(page, "Episode 2")
    await press(page, "r")
    await page.keyboard.type("late")
    await press(page, "Enter")
    await is_chosen(page, "Episode 3")
    await press(page, "u")
    await told(page, "Episode 2: to review again")
    assert await title(page) == "Episode 2"
    assert await reviews(visit) == {"row-1": ("approved", "")}
    await page.reload()
    await happens(page, READY)
    await press(page, "u")
    await told(page, "Episode 1: to review again")
    assert await reviews(visit) == {}
    await press(page, "u")
    await told(page, "There is nothing to undo.")


async def test_what_was_decided_before_is_restored_with_its_note(shown):
    visit, page = shown
    await press(page, "r")
    await page.keyboard.type("late")
    await press(page, "Enter")
    await is_chosen(page, "Episode 2")
    await page.click("#filters [data-category=rejected]")
    await press(page, "a")
    await told(page, "approved")
    await press(page, "u")
    await told(page, "Episode 1: rejected")
    assert await reviews(visit) == {"row-1": ("rejected", "late")}
    assert await page.text_content("#note-shown") == "late"


async def test_buttons_decide_too_and_do_not_keep_the_space_key(shown):
    visit, page = shown
    await page.click("#approve")
    await is_chosen(page, "Episode 2")
    await happens(page, READY)
    await press(page, "Space")
    await happens(page, "() => !document.getElementById('result').paused")
    await page.click("#undo")
    await told(page, "to review again")
    assert await reviews(visit) == {}


async def test_a_decision_that_cannot_be_stored_is_not_shown_as_made(shown):
    visit, page = shown
    await visit.journal.save(evolve((await visit.journal.records(["row-1"]))["row-1"], lipsync_id="ls_again"))
    async with page.expect_response("**/decision") as answer:
        await press(page, "a")
    assert (await answer.value).status == 409
    await told(page, "Not stored: the row row-1 has another video now")
    assert (await counts(page))["approved"] == 0


async def test_a_browser_that_keeps_nothing_decides_and_has_its_settings(shown):
    visit, page = shown
    await page.add_init_script("Storage.prototype.setItem = () => { throw new Error('not allowed') }")
    await page.reload()
    await happens(page, READY)
    await press(page, "a")
    await told(page, "Episode 1: approved")
    await is_chosen(page, "Episode 2")
    await press(page, "u")
    await told(page, "Episode 1: to review again")
    assert await reviews(visit) == {}
    await press(page, ">")
    await happens(page, "() => document.getElementById('result').playbackRate === 1.25")


def held(monkeypatch, method):
    """Have a method of journals wait; returns the events that say that it was called and that it goes on."""
    begun, goes_on, real = asyncio.Event(), asyncio.Event(), getattr(Journal, method)

    async def late(*given):
        begun.set()
        await goes_on.wait()
        return await real(*given)

    monkeypatch.setattr(Journal, method, late)
    return begun, goes_on


async def test_a_decision_is_stored_though_its_page_is_closed_meanwhile(shown, monkeypatch):
    visit, page = shown
    begun, goes_on = held(monkeypatch, "records")
    await press(page, "a")
    await begun.wait()
    await page.close()
    goes_on.set()
    async with asyncio.timeout(20):
        while await reviews(visit) != {"row-1": ("approved", "")}:  # noqa: ASYNC110 nothing else tells us
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("category", ["review", "all"])
async def test_a_note_that_is_begun_while_a_decision_is_stored_keeps_its_row_and_the_keyboard(
    shown, monkeypatch, category
):
    visit, page = shown
    await page.click(f"#filters [data-category={category}]")
    begun, goes_on = held(monkeypatch, "keep_review")
    await press(page, "a")
    await begun.wait()
    await press(page, "r")
    await page.keyboard.type("bad l")
    goes_on.set()
    await told(page, "Episode 1: approved")
    await page.keyboard.type("ips, as before")  # "a" would approve the next row
    await press(page, "Enter")
    await told(page, "Episode 1: rejected")
    assert await reviews(visit) == {"row-1": ("rejected", "bad lips, as before")}


async def test_a_note_that_is_begun_while_a_decision_is_undone_keeps_its_row_and_the_keyboard(shown, monkeypatch):
    visit, page = shown
    await press(page, "a")
    await is_chosen(page, "Episode 2")
    begun, goes_on = held(monkeypatch, "withdraw_review")
    await press(page, "u")
    await begun.wait()
    await press(page, "r")
    await page.keyboard.type("bad l")
    goes_on.set()
    await told(page, "Episode 1: to review again")
    await page.keyboard.type("ips, as before")
    await press(page, "Enter")
    await told(page, "Episode 2: rejected")
    assert await reviews(visit) == {"row-2": ("rejected", "bad lips, as before")}


async def test_a_decision_that_was_still_being_stored_is_what_an_undo_restores(shown, monkeypatch):
    visit, page = shown
    begun, goes_on = held(monkeypatch, "keep_review")
    await press(page, "a")
    await begun.wait()
    await press(page, "r", "Enter")
    goes_on.set()
    await told(page, "Episode 1: rejected")
    await press(page, "u")
    await told(page, "Episode 1: approved")
    assert await reviews(visit) == {"row-1": ("approved", "")}


async def decided_elsewhere(visit, page, key, decision):
    """Decide on a row as another window does, and wait until this page knows."""
    job = (await visit.journal.records([key]))[key].lipsync_id
    assert (await visit.decide(key, job, decision))[0] == 200
    known = "(name) => document.querySelector(`#filters [data-category=${name}] b`).textContent === '1'"
    await happens(page, known, decision)


@pytest.mark.parametrize("decision", ["approved", "rejected"])
async def test_a_row_that_is_decided_elsewhere_stays_in_front_of_who_watches_it(shown, decision):
    visit, page = shown
    await press(page, "j")
    await is_chosen(page, "Episode 2")
    await decided_elsewhere(visit, page, "row-2", decision)
    assert await title(page) == "Episode 2"
    await press(page, "a")
    await is_chosen(page, "Episode 1")
    assert await reviews(visit) == {"row-2": ("approved", "")}


@pytest.mark.parametrize("decision", ["approved", "rejected"])
async def test_a_note_is_about_the_row_that_it_was_begun_for(shown, decision):
    visit, page = shown
    await press(page, "r")
    await page.keyboard.type("the lips are late")
    await decided_elsewhere(visit, page, "row-1", decision)
    await press(page, "Enter")
    await told(page, "Episode 1: rejected")
    assert await reviews(visit) == {"row-1": ("rejected", "the lips are late")}


@pytest.mark.parametrize("other", [".list .row[data-index='1']", "#filters [data-category=failed]"])
async def test_a_note_is_dropped_when_another_row_is_chosen(shown, other):
    visit, page = shown
    await press(page, "r")
    await page.keyboard.type("late")
    await page.click(other)
    await happens(page, "() => document.getElementById('title').textContent !== 'Episode 1'")
    assert await page.is_hidden("#note-form")
    assert await reviews(visit) == {}


async def test_a_search_keeps_the_keyboard_though_it_ends_a_note(shown):
    visit, page = shown
    await press(page, "r")
    await page.click("#search")
    await page.keyboard.type("row-2")
    await is_chosen(page, "Episode 2")
    await page.keyboard.type("a")
    assert await page.input_value("#search") == "row-2a"
    assert await reviews(visit) == {}


async def hold(page, key, shows):
    """Hold a key down until the page *shows* a row, and for repetitions that each have the time to do something."""
    await page.keyboard.down(key)
    await is_chosen(page, shows)
    for _ in range(3):
        await page.keyboard.down(key)
        await page.evaluate("async () => { for (let i = 0; i < 3; i++) await (await fetch('rows')).text() }")
    await page.keyboard.up(key)


async def test_a_key_that_is_held_down_decides_once(shown):
    visit, page = shown
    await hold(page, "a", shows="Episode 2")
    await press(page, "a")
    await is_chosen(page, "Episode 3")
    assert set(await reviews(visit)) == {"row-1", "row-2"}
    await hold(page, "u", shows="Episode 2")
    await press(page, "r", "Enter")
    await told(page, "Episode 2: rejected")
    assert await reviews(visit) == {"row-1": ("approved", ""), "row-2": ("rejected", "")}


# Finding


async def test_the_filters_and_the_search_show_what_they_say(shown):
    _, page = shown
    assert await counts(page) == {"all": 5, "review": 3, "approved": 0, "rejected": 0, "failed": 1, "running": 1}
    await lists(page, "Episode 1", "Episode 2", "Episode 3")
    await press(page, "f", "f", "f")
    await lists(page, "Episode 4")
    await press(page, "Shift+F", "Shift+F", "Shift+F", "Shift+F")
    await lists(page, *(f"Episode {number}" for number in range(1, 6)))
    await press(page, "/")
    await page.keyboard.type("row-2 episode")
    await lists(page, "Episode 2")
    assert await title(page) == "Episode 2"
    await press(page, "Enter", "a")
    await told(page, "approved")
    await press(page, "/")
    await page.keyboard.type("nothing like this")
    await lists(page)
    assert await page.text_content("#list-empty") == "No row matches the search."
    await press(page, "Escape")
    await lists(page, *(f"Episode {number}" for number in range(1, 6)))


async def test_the_help_lists_the_keys_and_closes(shown):
    _, page = shown
    await press(page, "?")
    assert await page.is_visible("#help")
    assert "Approve" in await page.text_content("#keys")
    await press(page, "a", "Escape")
    assert await page.is_hidden("#help")
    assert (await counts(page))["approved"] == 0


async def test_a_reload_shows_what_was_decided(shown):
    visit, page = shown
    await press(page, "a")
    await is_chosen(page, "Episode 2")
    await page.reload()
    await happens(page, READY)
    assert (await counts(page))["approved"] == 1
    await visit.decide("row-2", "ls_2", "rejected", "from elsewhere")
    await happens(page, "() => document.querySelector('[data-category=rejected] b').textContent === '1'")


async def test_a_decision_that_comes_while_the_rows_are_read_is_newer_than_they_are(shown):
    visit, page = shown
    read, goes_on = asyncio.Event(), asyncio.Event()

    async def late(route):
        answer = await route.fetch()
        read.set()
        await goes_on.wait()
        await route.fulfill(response=answer)

    await page.route("**/rows", late)
    async with page.expect_response("**/events"):  # or the page would not learn of the decision
        await page.reload(wait_until="commit")
    await read.wait()
    await decided_elsewhere(visit, page, "row-1", "approved")
    goes_on.set()
    await happens(page, "() => document.getElementById('journal').textContent === 'run.sqlite'")
    assert await counts(page) == {"all": 5, "review": 2, "approved": 1, "rejected": 0, "failed": 1, "running": 1}


async def test_rows_that_break_off_are_named_as_the_problem(shown):
    _, page = shown
    await page.route("**/rows", lambda route: route.fulfill(body='{"info": ', content_type="application/json"))
    await page.reload()
    await told(page, "The rows cannot be read: Unexpected end of JSON input")


async def test_of_five_thousand_rows_only_those_in_sight_are_in_the_document(tmp_path):
    path = tmp_path / "run.sqlite"
    many = [Record(key=f"row-{number}", inputs="i", number=number, state=State.FAILED) for number in range(1, 5001)]
    await write_journal(path, many)
    async with visited(path) as visit, browser() as page:
        await page.goto(visit.url)
        await page.wait_for_selector(".list .row")
        assert (await counts(page))["failed"] == 5000
        drawn = "() => document.querySelectorAll('.list .row').length"
        assert await page.evaluate(drawn) < 60
        await page.evaluate("() => { document.getElementById('list').scrollTop = 1e9 }")
        await happens(page, "() => document.getElementById('list-body').textContent.includes('row-5000')")
        assert await page.evaluate(drawn) < 60


# Killed, and live


@contextlib.asynccontextmanager
async def command(*words, **environment):
    """Run a command with JSON output; yields the process and the address of its page."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *map(str, words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment
    )
    try:
        yield process, orjson.loads(await process.stdout.readline())["url"]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def test_decisions_survive_a_kill(tmp_path, out):
    path = tmp_path / "run.sqlite"
    await write_journal(path, [finished(1, out), finished(2, out)])
    async with command("review", path) as (process, url), browser(expected=LOST) as page:
        await page.goto(url)
        await page.wait_for_selector(".list .row")
        await press(page, "a")
        await is_chosen(page, "row-2")
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await happens(page, "() => !document.getElementById('offline').hidden")
        async with existing_journal(path) as journal:
            assert [review.decision for review in await journal.reviews()] == ["approved"]
    async with command("review", path) as (process, url), browser(expected=LOST) as page:
        await page.goto(url)
        await page.wait_for_selector(".list .row")
        assert (await counts(page))["approved"] == 1
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


async def test_a_run_is_followed_while_it_goes_on_and_reviewed_after_its_end(tmp_path):
    (tmp_path / "v.mp4").write_bytes(SAMPLE_VIDEO.read_bytes())
    (tmp_path / "a.mp3").write_bytes(SAMPLE_AUDIO.read_bytes())
    lines = ["key,title,video,audio", *(f"row-{n},Episode {n},v.mp4,a.mp3" for n in range(1, 4))]
    (tmp_path / "rows.csv").write_text(
        "\n".join([*lines, "row-4,Bad,https://sandbox.invalid/x.mp4?fail=No+face,a.mp3"])
    )
    async with Sandbox(speed=1000, job_seconds=30, manual=True) as sandbox:
        keys = {"HEYGEN_API_KEY": sandbox.api_key, "HEYGEN_BASE_URL": sandbox.url}
        words = ("dub", tmp_path / "rows.csv", "--output-dir", tmp_path / "out", "--review", "--poll-every", "0.02")
        async with command(*words, "--budget", "9", **keys) as (process, url), browser(expected=LOST) as page:
            await page.goto(url)
            await happens(page, "() => document.getElementById('run-bar').ariaLabel === '4 running'")
            assert await page.text_content("#run-title") == "Run in progress: 0 of 4 rows"
            facts = await page.text_content("#run-facts")
            assert "4 of " in facts
            assert "budget $9.00" in facts
            assert (await counts(page))["running"] == 4
            await sandbox.advance(60)
            await happens(page, "() => document.getElementById('run-title').textContent === 'Run ended: 4 of 4 rows'")
            assert await page.is_visible("#timeline")
            assert await counts(page) == {
                "all": 4,
                "review": 3,
                "approved": 0,
                "rejected": 0,
                "failed": 1,
                "running": 0,
            }
            await page.click("#filters [data-category=review]")
            await happens(page, READY)
            await press(page, "a")
            await is_chosen(page, "Episode 2")
            process.send_signal(signal.SIGINT)
            await process.communicate()
            assert process.returncode == 130
    async with existing_journal(tmp_path / "rows.sqlite") as journal:
        assert [review.key for review in await journal.reviews()] == ["row-1"]


# How it looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080)])
async def test_nothing_is_cut_off_and_text_can_be_read(tmp_path, out, width, height, scheme):
    path = tmp_path / "run.sqlite"
    await write_journal(path, [finished(1, out), failed(2, "No face")])
    async with visited(path) as visit, browser(width=width, height=height, scheme=scheme) as page:
        await page.goto(visit.url)
        await page.wait_for_selector(".list .row")
        sizes = "() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
        assert await page.evaluate(sizes) == [width, height]
        bottoms = (
            "() => ['approve', 'next', 'facts', 'help-button']"
            ".map((id) => document.getElementById(id).getBoundingClientRect().bottom)"
        )
        assert max(await page.evaluate(bottoms)) < height
        contrasts = await page.evaluate(CONTRASTS)
        assert {name: ratio for name, ratio in contrasts.items() if ratio < 4.5} == {}


CONTRASTS = """() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true })
  const luminance = (colour) => {
    pen.fillStyle = colour
    pen.fillRect(0, 0, 1, 1)
    const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map((one) => one / 255)
      .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const style = getComputedStyle(document.documentElement)
  const value = (name) => luminance(style.getPropertyValue(`--${name}`))
  const pairs = [
    ["ink", "ground"], ["ink", "pane"], ["soft", "pane"], ["faint", "pane"], ["faint", "ground"],
    ["faint", "accent-soft"], ["soft", "accent-soft"], ["accent", "accent-soft"], ["good", "good-ground"],
    ["bad", "bad-ground"],
    ["warn", "warn-ground"], ["busy", "busy-ground"],
  ]
  return Object.fromEntries(pairs.map(([ink, ground]) => {
    const [dark, light] = [value(ink), value(ground)].sort((one, other) => one - other)
    return [`${ink} on ${ground}`, (light + 0.05) / (dark + 0.05)]
  }))
}"""
