"""What a terminal shows of a bulk run: the live view, a line for each row, the summary and the next commands."""

import io

import pytest
from attrs import evolve

pytest.importorskip("cyclopts", reason="the command line is an extra")

from pathlib import Path

from rich.cells import cell_len
from rich.console import Console, Group

from heygen_async.bulk.budget import OverBudget
from heygen_async.bulk.events import DubEvent, DubSnapshot
from heygen_async.bulk.survey import Survey
from heygen_async.cli.dub_commands import RunCommands
from heygen_async.cli.dub_flags import RunFlags
from heygen_async.cli.dub_progress import RunProgress
from heygen_async.cli.dub_summary import next_steps, summary, summary_object, survey_lines
from heygen_async.cli.dub_view import clock, line, live_view
from heygen_async.cli.review_flags import ReviewFlags
from heygen_async.errors import LipsyncFailed
from heygen_async.models import DubOutcome, DubRow, Lipsync, Wallet

SNAPSHOT = DubSnapshot(
    stages={"running": 10, "completed": 40},
    total=100,
    in_flight=10,
    limit=10,
    refusals=3,
    estimate=12.5,
    spent=10.0,
    reserved=2.5,
    budget=50.0,
    trouble=None,
    balance_before=Wallet(currency="usd", remaining_balance=20.0),
    balance_after=Wallet(currency="credits", remaining_balance=1234.5),
    halted=None,
)
NEW = evolve(SNAPSHOT, stages={}, estimate=0.0, spent=0.0, reserved=0.0)
"""A run that begins, on a new journal."""
LARGE = evolve(
    SNAPSHOT,
    stages={
        "completed": 12_345,
        "unchanged": 20_000,
        "failed": 1_234,
        "skipped": 56,
        "uploading": 8,
        "waiting": 16,
        "submitting": 2,
        "running": 20,
        "downloading": 4,
    },
    total=99_999,
    in_flight=22,
    limit=24,
    spent=12_345.67,
    reserved=1_234.56,
    budget=50_000.0,
    trouble="POST /v3/lipsyncs: 503 service_unavailable: The service is not available at the moment. [request req_1]",
)
ROW = DubRow("https://sandbox.invalid/v.mp4", "https://example.com/a.mp3", key="ep-1")
STAGES = ("uploading", "running", "downloading", "failed", "running", "running")
KEYS = [f"season-1-episode-{number:02}" for number in range(1, 61)]


class Clock:
    """A clock that a test moves."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def now():
    return Clock()


@pytest.fixture
def progress(now):
    begun = RunProgress(now)
    begun.begin(NEW)
    return begun


def outcome(key="ep-1", state="completed", error=None, **details):
    return DubOutcome(row=ROW, key=key, state=state, error=error, **details)


def no_face():
    return LipsyncFailed(Lipsync(id="ls_1", status="failed", failure_message="No face was found in the video"))


def event(stage, key="ep-1"):
    return DubEvent(stage=stage, key=key, place="line 2")


def shown(*parts, width=80):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(Group(*parts), crop=False)
    return [text.rstrip() for text in console.file.getvalue().splitlines()]


# The live view, as a terminal of 80 or 120 columns shows it; without colours only the full part of the bar is drawn


LIVE_80 = """\
12,345 completed, 20,000 unchanged, 1,234 failed, 56 skipped, 66,314 not started
8 uploading, 16 waiting, 2 submitting, 20 running, 4 downloading
━━━━━━━━━━━━━━━━━━━━
33,635 of 99,999 rows in 1:40:00, 123.5 rows/min, about 8:57:34 left
22 of 24 concurrent jobs
about $12,345.67 spent in all runs, $1,234.56 reserved, budget $50,000.00
season-1-episode-01 uploading, season-1-episode-02 running, season-1-episode-03…
retrying: POST /v3/lipsyncs: 503 service_unavailable: The service is not
available at the moment. [request req_1]
  season-1-episode-04: No face was found in the video
""".splitlines()

LIVE_120 = """\
12,345 completed, 20,000 unchanged, 1,234 failed, 56 skipped, 66,314 not started
8 uploading, 16 waiting, 2 submitting, 20 running, 4 downloading
━━━━━━━━━━━━━━━━━━━━
33,635 of 99,999 rows in 1:40:00, 123.5 rows/min, about 8:57:34 left
22 of 24 concurrent jobs
about $12,345.67 spent in all runs, $1,234.56 reserved, budget $50,000.00
season-1-episode-01 uploading, season-1-episode-02 running, season-1-episode-03 downloading, season-1-episode-05 runnin…
retrying: POST /v3/lipsyncs: 503 service_unavailable: The service is not available at the moment. [request req_1]
  season-1-episode-04: No face was found in the video
""".splitlines()


@pytest.mark.parametrize(("width", "expected"), [(80, LIVE_80), (120, LIVE_120)])
def test_the_live_view_of_a_large_run(now, width, expected):
    progress = RunProgress(now)
    progress.begin(SNAPSHOT)
    for number in range(12_345):
        progress.on_event(event("waiting", f"{number}"))
        progress.add(outcome(f"{number}"))
    for key, stage in zip(KEYS, STAGES, strict=False):
        progress.on_event(event(stage, key))
    progress.add(outcome(KEYS[3], "failed", no_face()))
    now.now += 6000

    assert shown(live_view(LARGE, progress), width=width) == [*expected, ""]


BEGINNING = """\
100 not started

0 of 100 rows in 0:00
about $0.00 spent, budget $50.00
""".splitlines()


def test_the_live_view_at_the_beginning(progress):
    view = evolve(NEW, in_flight=0, balance_after=None)

    assert shown(live_view(view, progress)) == [*BEGINNING, ""]


def test_the_live_view_shows_rows_rate_time_left_and_money(progress, now):
    for number in range(50):
        progress.on_event(event("submitting", f"ep-{number}"))
    for number in range(40):
        progress.on_event(event("completed", f"ep-{number}"))
        progress.add(outcome(f"ep-{number}"))
    now.now += 600
    view = shown(live_view(SNAPSHOT, progress))

    assert view[:2] == ["40 completed, 50 not started", "10 running"]
    assert view[3:6] == [
        "40 of 100 rows in 10:00, 4.0 rows/min, about 15:00 left",
        "10 of 10 concurrent jobs",
        "about $10.00 spent, $2.50 reserved, budget $50.00",
    ]
    assert view[6].startswith("ep-40 submitting, ep-41 submitting")


@pytest.mark.parametrize("snapshot", [SNAPSHOT, LARGE, NEW])
def test_the_counts_of_the_view_and_of_the_summary_add_up_to_the_number_of_rows(progress, snapshot):
    live = " ".join(shown(live_view(snapshot, progress), width=400)[:2]).partition("━")[0]
    [end, *_] = shown(*summary(snapshot, progress, {}, {}), width=400)

    for text in (live, end.partition(" in 0:00")[0]):
        counts = [word.replace(",", "") for word in text.split()]
        assert sum(int(count) for count in counts if count.isdecimal()) == snapshot.total


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_of_the_live_view_is_wider_than_the_window(progress, width):
    stages = ("uploading", "waiting", "submitting", "running", "downloading", "completed", "failed", "skipped")
    for number in range(30):
        progress.on_event(event("running", f"{number}.a-long-key-of-a-row-in-progress"))
    progress.add(outcome("日本語" * 30, "failed", ValueError("顔が見つかりません" * 20)))
    snapshot = evolve(SNAPSHOT, stages=dict.fromkeys(stages, 1234), total=99_999)

    assert max(map(cell_len, shown(live_view(snapshot, progress), width=width))) <= width


def test_control_characters_of_names_and_messages_are_not_shown(progress):
    hostile = "a\x1b[2Jb\x9bc\u202ed\ne"
    progress.on_event(event("running", hostile))
    progress.add(outcome(hostile, "failed", ValueError(hostile)))
    snapshot = evolve(
        SNAPSHOT,
        stages={"failed": 1},
        trouble=hostile,
        halted=hostile,
        balance_after=Wallet(currency=hostile, remaining_balance=1.0),
    )
    lines = [
        *shown(live_view(snapshot, progress)),
        *shown(*summary(snapshot, progress, {"Report": hostile}, {"Continue": hostile})),
    ]

    assert not set("".join(lines)) & {"\x1b", "\x9b", "\u202e", "\n"}
    assert line(outcome(hostile), 1, 2) == "1/2 a [2Jb c d e completed"


def test_the_live_view_shows_the_error_while_the_api_does_not_answer(progress):
    view = shown(live_view(evolve(SNAPSHOT, trouble="no connection to a.b"), progress), width=60)

    assert "retrying: no connection to a.b" in view


def test_the_live_view_says_that_an_interrupted_run_stops(progress):
    assert not any("stopping" in text for text in shown(live_view(SNAPSHOT, progress)))
    progress.is_stopping = True
    assert "stopping after the next answers; a second Ctrl-C stops at once" in shown(live_view(SNAPSHOT, progress))


# Rate and time left


def test_the_time_left_is_not_estimated_without_a_total(progress, now):
    progress.on_event(event("submitting"))
    now.now += 10
    progress.add(outcome())

    assert progress.seconds_left(evolve(SNAPSHOT, total=None)) is None


@pytest.mark.parametrize("stage", ["waiting", "submitting"])  # the items of a batch are not submitted one by one
def test_rows_that_an_earlier_run_finished_or_submitted_do_not_count_for_the_rate(progress, now, stage):
    progress.add(outcome("ep-1", "unchanged"))
    progress.on_event(event("running", "ep-2"))
    progress.add(outcome("ep-2"))
    now.now += 10
    assert progress.rate() is None

    progress.on_event(event(stage, "ep-3"))
    now.now += 10
    progress.add(outcome("ep-3"))
    assert progress.rate() == pytest.approx(0.1)


def test_rows_that_are_skipped_do_not_count_for_the_rate(progress, now):
    for key in ("ep-1", "ep-2"):
        progress.on_event(event("waiting", key))
    now.now += 10
    progress.add(outcome("ep-1", "skipped", OverBudget("too much")))
    assert progress.rate() is None

    progress.add(outcome("ep-2"))
    assert progress.rate() == pytest.approx(0.1)


# Lines


def test_a_row_is_shown_in_a_line():
    assert line(outcome(), 3, 10) == "3/10 ep-1 completed"
    assert line(outcome(), 3, None) == "3 ep-1 completed"
    assert line(outcome(path=Path("my  videos/a.mp4")), 3, None) == "3 ep-1 completed my  videos/a.mp4"
    assert line(outcome(warnings=("no captions",)), 3, None) == "3 ep-1 completed (warning: no captions)"
    assert line(outcome(state="failed", error=ValueError("give overwrite=True")), 1, None) == (
        "1 ep-1 failed: give --overwrite"
    )
    assert line(outcome(state="failed", error=no_face()), 1, None) == "1 ep-1 failed: No face was found in the video"


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (61.9, "1:01"), (3600, "1:00:00")])
def test_lengths_of_time_are_short(seconds, shown):
    assert clock(seconds) == shown


# The summary


PLACES = {"Report": Path("episodes.report.csv"), "Journal": Path("episodes.sqlite")}
FLAGS = RunFlags(output_dir=Path("a-longer-folder/for-the-videos"), journal=Path("my journal.sqlite"), budget=50.0)
COMMANDS = RunCommands(Path("episodes.csv"), FLAGS, ReviewFlags(), None)
SAME = "heygen-async dub episodes.csv --output-dir a-longer-folder/for-the-videos --journal 'my journal.sqlite'"

SUMMARY_80 = f"""\
40 completed, 1 failed, 18 unchanged, 2 in progress, 39 not submitted in 3:12,
about $10.00 spent, $2.50 reserved, budget $50.00.
  season-1-episode-07: No face was found in the video
Balance: $20.00 before, 1,234.50 credits after
Report: episodes.report.csv
Journal: episodes.sqlite
Continue:
  {SAME} --budget 50
Retry the failed rows:
  {SAME} --budget 50 --retry-failed
""".splitlines()

SUMMARY_120 = f"""\
40 completed, 1 failed, 18 unchanged, 2 in progress, 39 not submitted in 3:12, about $10.00 spent, $2.50 reserved,
budget $50.00.
  season-1-episode-07: No face was found in the video
Balance: $20.00 before, 1,234.50 credits after
Report: episodes.report.csv
Journal: episodes.sqlite
Continue:
  {SAME} --budget 50
Retry the failed rows:
  {SAME} --budget 50 --retry-failed
""".splitlines()


@pytest.mark.parametrize(("width", "expected"), [(80, SUMMARY_80), (120, SUMMARY_120)])
def test_the_summary_has_counts_time_money_and_the_next_commands(progress, now, width, expected):
    now.now += 192
    stages = {"completed": 40, "failed": 1, "unchanged": 18, "running": 1, "downloading": 1, "waiting": 3}
    snapshot = evolve(SNAPSHOT, stages=stages)
    progress.add(outcome("season-1-episode-07", "failed", no_face()))
    commands = COMMANDS.after(snapshot, is_over_budget=progress.is_over_budget)

    assert shown(*summary(snapshot, progress, PLACES, commands), width=width) == expected


def test_a_complete_run_needs_no_next_command(progress):
    snapshot = evolve(SNAPSHOT, stages={"completed": 60, "unchanged": 40}, reserved=0.0)

    assert COMMANDS.after(snapshot, is_over_budget=False) == {}
    assert shown(*summary(snapshot, progress, {}, {}))[0].startswith("60 completed, 40 unchanged in 0:00")


@pytest.mark.parametrize(
    ("given", "is_without"),
    [
        ({}, True),
        ({"state": "unchanged"}, False),
        ({"path": Path("ep-1.mp4")}, False),
        ({"row": evolve(ROW, output="ep-1.mp4")}, False),
    ],
    ids=["completed", "unchanged", "written", "it has a place"],
)
def test_videos_without_a_place_are_downloaded_by_the_next_command(given, is_without, progress):
    progress.add(evolve(outcome(), **given))
    flags = RunFlags(retry_failed=True)
    commands = evolve(COMMANDS, flags=flags).after(
        evolve(NEW, total=0), is_over_budget=False, is_without_files=progress.is_without_files
    )

    expected = {"Download the videos": "heygen-async dub episodes.csv --output-dir PATH"}
    assert commands == (expected if is_without else {})


def test_after_a_run_of_drafts_the_review_is_the_last_next_command(progress):
    drafts = Path("my episodes.sqlite")
    progress.add(outcome(path=Path("ep-1.mp4")))
    assert progress.has_drafts
    snapshot = evolve(NEW, stages={"completed": 2, "failed": 1}, total=3)
    commands = COMMANDS.after(snapshot, is_over_budget=False, drafts=drafts)
    assert [*commands.items()][1:] == [
        ("Watch the drafts, and approve or reject them", "heygen-async review 'my episodes.sqlite'")
    ]
    for review in (ReviewFlags(approved=True), ReviewFlags(review=True)):
        assert not evolve(COMMANDS, review=review).after(evolve(NEW, total=0), is_over_budget=False, drafts=drafts)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(
            DubOutcome(row=evolve(ROW, mode="precision"), key="a", state="completed", path=Path("a.mp4")), id="final"
        ),
        pytest.param(DubOutcome(row=ROW, key="a", state="failed"), id="failed"),
        pytest.param(DubOutcome(row=ROW, key="a", state="completed"), id="without a file"),
    ],
)
def test_there_is_no_draft_to_watch(progress, given):
    progress.add(given)
    assert not progress.has_drafts


def test_after_the_end_of_the_budget_the_command_has_a_place_for_a_higher_one(progress):
    progress.add(outcome("ep-8", "skipped", OverBudget("too much")))
    snapshot = evolve(SNAPSHOT, stages={"completed": 40, "skipped": 60}, halted="the budget would be exceeded")
    commands = COMMANDS.after(snapshot, is_over_budget=progress.is_over_budget)

    assert commands == {"Continue with a higher budget": f"{SAME} --budget USD"}
    assert "Not all rows were submitted: the budget would be exceeded" in shown(
        *summary(snapshot, progress, {}, commands)
    )


def test_a_command_has_every_flag_that_was_given():
    flags = RunFlags(
        max_in_flight=4, max_attempts=5, rates={"speed": 0.05}, submit="batch", captions=True, retry_failed=True
    )
    commands = RunCommands(Path("episodes.csv"), flags, ReviewFlags(), "http://127.0.0.1:8080")

    assert commands.after_rehearsal()["Start the run"] == (
        "heygen-async dub episodes.csv --max-in-flight 4 --max-attempts 5 --rates.speed 0.05 "
        "--submit batch --captions --retry-failed --base-url http://127.0.0.1:8080"
    )


def test_after_a_rehearsal_its_commands_have_the_same_folder_and_budget():
    commands = RunCommands(Path("a.csv"), RunFlags(output_dir=Path("out"), budget=5.0), ReviewFlags(), None)

    assert commands.after_rehearsal() == {
        "Estimate the cost": "heygen-async dub a.csv --output-dir out --budget 5 --dry-run",
        "Start the run": "heygen-async dub a.csv --output-dir out --budget 5",
    }


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"done": 3}, {}),
        ({}, {}),
        ({"done": 2, "failed": 1}, {"Retry the failed rows": "heygen-async dub a.csv --retry-failed"}),
        ({"done": 2, "under_way": 1}, {"Start the run": "heygen-async dub a.csv"}),
        (
            {"to_submit": 2, "failed": 1},
            {
                "Start the run": "heygen-async dub a.csv",
                "Retry the failed rows": "heygen-async dub a.csv --retry-failed",
            },
        ),
    ],
    ids=str,
)
def test_after_a_dry_run_a_run_is_suggested_only_if_it_has_something_to_do(counts, expected):
    none = dict.fromkeys(("to_submit", "under_way", "done", "failed", "unknown"), 0)
    survey = Survey(rows=sum(counts.values()), estimate=0.0, assumed_seconds=60.0, **{**none, **counts})

    assert RunCommands(Path("a.csv"), RunFlags(), ReviewFlags(), None).after_dry_run(survey) == expected


def test_the_summary_has_the_last_failed_rows(progress):
    for number in range(7):
        progress.add(outcome(f"ep-{number}", "failed", ValueError("no face")))
    progress.add(outcome("ep-8", "skipped", OverBudget("too much")))
    lines = shown(*summary(evolve(SNAPSHOT, stages={"failed": 7, "skipped": 1}), progress, {}, {}), width=120)

    assert lines[1:7] == [f"  ep-{number}: no face" for number in range(2, 7)] + ["  2 more failed rows"]


def test_the_summary_says_that_other_failed_rows_are_in_the_report_if_it_was_written(progress):
    progress.add(outcome("ep-1", "failed", no_face()))
    progress.is_reported = True
    lines = shown(*summary(evolve(SNAPSHOT, stages={"failed": 3}), progress, {}, {}), width=120)

    assert lines[2] == "  2 more failed rows are in the report"


def test_long_reasons_are_wrapped_and_indented_and_commands_are_in_one_piece(progress):
    progress.add(outcome("ep-1", "failed", ValueError("no face was found; " * 9)))
    command = f"heygen-async dub {'folder/' * 30}episodes.csv"
    lines = shown(*summary(evolve(SNAPSHOT, stages={"failed": 1}), progress, {}, {"Continue": command}), width=80)

    assert f"  {command}" in lines
    assert max(cell_len(text) for text in lines if command not in text) <= 80
    assert all(text.startswith("  ") for text in lines if "no face" in text)


def test_the_sum_of_earlier_runs_is_not_the_cost_of_this_run(now):
    progress = RunProgress(now)
    progress.begin(SNAPSHOT)

    assert "about $10.00 spent in all runs" in shown(*summary(SNAPSHOT, progress, {}, {}), width=400)[0]


def test_a_rehearsal_says_that_nothing_is_paid(now):
    rehearsed = summary(SNAPSHOT, RunProgress(now, is_rehearsal=True), {}, {})

    assert shown(*rehearsed, width=100)[0].endswith(", nothing paid.")


def test_the_json_of_a_summary_has_money_apart_and_the_next_commands():
    data = summary_object(SNAPSHOT, 1.23456, {"Continue": "heygen-async dub a.csv"})

    assert data["type"] == "summary"
    assert (data["summary"]["spent"], data["summary"]["reserved"], data["summary"]["budget"]) == (10.0, 2.5, 50.0)
    assert data["summary"]["next_commands"] == ["heygen-async dub a.csv"]


# A dry run


@pytest.mark.parametrize(
    ("budget", "earlier", "line"),
    [
        (2.1, 0.27, ["The budget of $2.10 is less than that and the $0.27 of earlier jobs."]),
        (1.9, 0.0, ["The budget of $1.90 is less than that."]),
        (2.27, 0.27, []),
        (None, 100.0, []),
    ],
)
def test_a_dry_run_compares_the_budget_with_what_all_runs_would_cost(budget, earlier, line):
    survey = Survey(rows=3, to_submit=1, under_way=0, done=2, failed=0, unknown=1, assumed_seconds=60.0, estimate=2.0)

    assert shown(*survey_lines(survey, budget, earlier=earlier))[3:] == line


def test_a_dry_run_says_what_a_run_would_do_and_how_to_start_it():
    survey = Survey(
        rows=60, to_submit=46, under_way=1, done=12, failed=1, unknown=40, assumed_seconds=1300.4, estimate=91.91
    )
    commands = RunCommands(Path("a.csv"), RunFlags(), ReviewFlags(), None)
    lines = shown(*survey_lines(survey, 50.0), *next_steps(commands.after_dry_run(survey)))

    assert lines == [
        "60 valid rows; nothing was sent.",
        "46 to submit, 1 in progress, 12 done, 1 failed before.",
        "About $91.91 for the rows to submit, with 1,300 s for each unknown length (40).",
        "The budget of $50.00 is less than that.",
        "Start the run:",
        "  heygen-async dub a.csv",
        "Retry the failed rows:",
        "  heygen-async dub a.csv --retry-failed",
    ]
