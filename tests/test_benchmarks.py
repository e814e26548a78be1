"""The benchmarks of the repository run: each part at its smallest size, with the contenders that are installed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import answers, plots
from benchmarks.bench import Bench, Task
from benchmarks.canned_heygen import Canned, Requests
from benchmarks.compare import compare
from benchmarks.contender import OPERATIONS, Client, Route
from benchmarks.contenders import BARE, CONTENDERS, OURS
from benchmarks.markdown import comparison, document
from benchmarks.overview import BEGIN, END, readme_section, with_section
from benchmarks.parts import PARTS
from benchmarks.results import RATIO, Figure, Line, PartResult, Results, Table

ROOT = Path(__file__).parents[1]
SECONDS = 280.0
"""For a command, which takes at most 10 on a machine that does nothing else; then the test is stopped with it."""


def run(*arguments):
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS, cwd=ROOT)


# The command


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PARTS)
def test_every_part_runs_at_its_smallest_size(name, tmp_path):
    run(name, "--quick", "--output", tmp_path)
    (part,) = Results.from_json((tmp_path / "results.json").read_bytes()).parts
    assert part.name == name
    assert part.tables
    for table in part.tables:
        assert table.lines, table
        for line in table.lines:
            assert line.figures or line.note, line
            assert "failed" not in line.note, line
            for column, figure in line.figures.items():
                assert figure.low <= figure.value <= figure.high, (line.name, column)


def test_the_list_names_every_part_with_how_long_it_takes_and_what_it_is():
    lines = run("--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(PARTS)
    for line, part in zip(lines, PARTS.values(), strict=True):
        assert re.fullmatch(r"\w+ +[\d.]+ min  .+\.", line), line
        assert part.MINUTES > 0


def test_a_part_that_does_not_exist_is_refused():
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run("no_such_part")
    assert "there is no no_such_part; the parts are calls" in caught.value.stderr


def test_saved_results_are_compared_and_written_without_measuring(tmp_path):
    saved, readme = tmp_path / "saved.json", tmp_path / "README.md"
    saved.write_text(results(1.0).to_json())
    readme.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nThe end.\n")
    done = run("--results", saved, "--compare", saved, "--readme", readme)
    assert "# Comparison" in done.stdout
    assert f"| **{OURS}** |" in readme.read_text()
    assert re.fullmatch(r"# Title\n\n<!--.*-->\n\nThe end\.\n", readme.read_text(), re.DOTALL)
    if plots.has_matplotlib():
        assert {path.name for path in (tmp_path / ".github").iterdir()} == {"overview-light.svg", "overview-dark.svg"}
    else:
        assert "No plots: matplotlib is not installed." in done.stderr


# Rounds


async def test_a_create_whose_connection_drops_makes_one_job_under_one_key():
    async with Bench(is_quick=True).open() as clients:
        task = Task("create", "create_once", server={"drops": 1})
        found = await clients.rounds(task, rounds=1)
    ours, bare = found.samples[OURS][0].facts, found.samples[BARE][0].facts
    assert (ours["error"], bare["error"]) == (None, "ServerDisconnectedError")
    assert [ours["server"][what] for what in ("posts", "keys", "jobs")] == [2, 1, 1]
    assert [bare["server"][what] for what in ("posts", "keys", "jobs")] == [1, 1, 1]


async def test_contenders_that_fail_or_are_not_installed_leave_the_others_alone(monkeypatch):
    ours = CONTENDERS[OURS]
    monkeypatch.setitem(CONTENDERS, "unknown to its process", evolve(ours, name="unknown to its process"))
    monkeypatch.setitem(CONTENDERS, "absent", evolve(ours, name="absent", module="no_such_package"))
    monkeypatch.setitem(CONTENDERS, "unable", evolve(ours, name="unable", cannot={"get": "has no get"}))
    async with Bench(is_quick=True).open() as clients:
        task = Task("get", "calls", {"method": "get", "cpu": 0.0, "at_once": 2})
        found = await clients.rounds(task, rounds=2)
    assert [sample.facts["calls"] for sample in found.samples[OURS]] == [2, 2]
    assert found.notes["unknown to its process"] == "failed: KeyError: 'unknown to its process'"
    assert found.notes["absent"] == "not installed (heygen-async)"
    assert found.notes["unable"] == "has no get"
    lines = found.lines(lambda name: {"CPU": found.ratio(name, lambda one: one.cpu, to=OURS)})
    assert {line.name for line in lines} == set(CONTENDERS)


def test_every_contender_says_of_each_operation_that_it_can_or_why_not():
    for contender in CONTENDERS.values():
        assert set(contender.cannot) <= set(OPERATIONS), contender.name
        assert all(contender.cannot.values())
    assert {name for name in vars(Client) if not name.startswith("_")} == set(OPERATIONS)


def test_the_version_of_every_rival_is_pinned():
    lines = (ROOT / "benchmarks" / "requirements.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    assert {one.requirement for one in CONTENDERS.values()} - {"heygen-async", "aiohttp"} <= pinned


# The server


@given(st.lists(st.sampled_from(range(1, 400)), min_size=1), st.booleans())
def test_requests_are_answered_whatever_pieces_they_come_in(cuts, in_chunks):
    body = b"x" * 300
    post = b"POST /v3/lipsyncs HTTP/1.1\r\nIdempotency-Key: k\r\n"
    if in_chunks:
        post += b"Transfer-Encoding: chunked\r\n\r\n12c\r\n" + body + b"\r\n0\r\n\r\n"
    else:
        post += b"Content-Length: 300\r\n\r\n" + body
    get = b"GET /v3/lipsyncs/ls_1 HTTP/1.1\r\nHost: x\r\n\r\n"
    canned, written = Canned(routes=answers.ROUTES), []
    requests = Requests(canned, written.append, lambda: None)
    for sent in (get, post, get):
        rest = sent
        for cut in cuts:
            requests.feed(rest[:cut])
            rest = rest[cut:]
        requests.feed(rest)
    assert [b'"lipsync_id"' in answer for answer in written] == [False, True, False]
    assert canned.posts == {"k": 1}


def test_a_post_is_dropped_only_after_its_whole_body_came():
    canned, written, closed = Canned(routes=answers.ROUTES), [], []
    canned.reset(drops=1)
    requests = Requests(canned, written.append, lambda: closed.append(True))
    requests.feed(b"POST /v3/lipsyncs HTTP/1.1\r\nContent-Length: 2\r\n\r\n{")
    assert (closed, canned.posts.total()) == ([], 0)
    requests.feed(b"}")
    assert (written, closed, canned.posts) == ([], [True], {"": 1})


def test_a_large_body_is_not_kept():
    canned, written = Canned(routes=[Route("PUT /", {})]), []
    requests = Requests(canned, written.append, lambda: None)
    size = 64 << 20
    requests.feed(f"PUT /x HTTP/1.1\r\nContent-Length: {size}\r\n\r\n".encode())
    for _ in range(64):
        assert len(requests.received) <= 1 << 20
        requests.feed(b"x" * (1 << 20))
    assert len(written) == 1


# Results


def results(value, *, spread=0.0, machine="a machine", unit="us"):
    figure = Figure(value, unit, value - spread, value + spread, 5)
    ratio = Figure(value, RATIO, value - spread, value + spread, 5, at_most=2.0)
    lines = [Line(OURS, {"CPU a call": figure, "ratio": ratio}), Line("absent", note="not installed")]
    part = PartResult("calls", 1.0, [Table("get, 100 at once", "Calls.", lines)])
    return Results(machine, {"Python": "3.11.7"}, "2026-11-28", "python -m benchmarks calls", [part])


def test_results_survive_json():
    assert Results.from_json(results(1.5, spread=0.1).to_json()) == results(1.5, spread=0.1)


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=20))
def test_a_figure_is_the_median_within_its_spread(values):
    figure = Figure.of(values, "us")
    assert min(values) <= figure.low <= figure.value <= figure.high <= max(values)


def test_a_goal_is_reached_from_its_own_side():
    assert Figure.of([1.0], RATIO, at_most=1.22).is_met
    assert not Figure.of([1.3], RATIO, at_most=1.22).is_met
    assert Figure.of([6.0], RATIO, at_least=5.5).is_met
    assert not Figure.of([5.0], RATIO, at_least=5.5).is_met


@pytest.mark.parametrize(
    ("now", "spread", "verdict"),
    [
        (1.09, 0.0, "noise"),
        (1.5, 0.0, "higher"),
        (0.5, 0.0, "lower"),
        (1.5, 0.3, "noise"),
        (1.5, 0.2, "higher"),
    ],
)
def test_a_small_change_or_one_within_the_spreads_is_noise(now, spread, verdict):
    changes = compare(results(1.0, spread=spread), results(now, spread=spread)).changes
    assert [change.verdict for change in changes] == [verdict, verdict]


def test_only_ratios_and_counts_are_compared_between_machines():
    found = compare(results(1.0), results(2.0, machine="another"))
    assert [change.place for change in found.changes] == [("calls", "get, 100 at once", OURS, "ratio")]
    assert "The machines or the versions of Python differ" in comparison(found)
    counts = compare(results(1.0, unit=""), results(2.0, machine="another", unit=""))
    assert len(counts.changes) == 2


def test_a_comparison_says_what_counts_as_noise_and_shows_the_rest():
    text = comparison(compare(results(1.0), results(1.5)))
    assert "A change below 10% is noise, and so is one whose spreads overlap. 0 of 2 figures" in text
    assert "Of 1 ratios half changed by at most 50%, and nine of ten by at most 50%." in text
    assert "| calls, get, 100 at once, heygen-async, ratio | 1x | 1.5x | 1.5x | higher |" in text


def test_the_document_shows_spreads_notes_and_goals():
    text = document(results(2.5, spread=0.5))
    assert "| heygen-async | 2.5 us (2 to 3) | 2.5x (2 to 3) |  |" in text
    assert "| absent | - | - | not installed |" in text
    assert "| calls, get, 100 at once, heygen-async: ratio | 2.5x (2 to 3) | at most 2 | **no** |" in text


def test_the_section_of_the_readme_has_the_table_the_plots_and_the_command():
    section = readme_section(results(1.5), ".github")
    assert "| **heygen-async** |" in section
    assert 'srcset=".github/overview-dark.svg"' in section
    assert "`python -m benchmarks calls`, 2026-11-28, a machine." in section
    assert with_section(f"a\n{BEGIN}\nold\n{END}\nb", section) == f"a\n{section}\nb"
    with pytest.raises(ValueError, match="the README has no <!-- benchmarks: begin -->"):
        with_section("no marks", section)
