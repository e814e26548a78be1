"""What the commands of a cluster show to a person."""

import pytest

pytest.importorskip("cyclopts", reason="the command line is an extra")
pytest.importorskip("psycopg", reason="a cluster is an extra")

from heygen_async.bulk.cluster import AccountStatus, ClusterStatus, Enqueued, RunStatus
from heygen_async.bulk.survey import Survey
from heygen_async.cli.cluster_view import enqueued_lines, enqueued_object, status_lines, status_object

HERE, THERE = "http://127.0.0.1:8080", "https://api.heygen.com"


def a_run(name, origin, rows, **given):
    money = {"estimate": 0.0, "reserved": 0.0, "budget": None, **given}
    return RunStatus(name=name, origin=origin, account=None, rows=rows, rate=0.0, halted=None, **money)


def test_runs_of_one_name_at_several_addresses_are_told_apart():
    runs = [a_run("a.csv", HERE, {"done": 1}), a_run("a.csv", THERE, {"ready": 2}), a_run("b.csv", HERE, {"done": 2})]
    shown = [line for line in status_lines(ClusterStatus(runs=runs, accounts=[])) if line.startswith("run ")]

    assert shown == [
        f"run a.csv at {HERE}: 1 of 1 row ended (1 done)",
        f"run a.csv at {THERE}: 0 of 2 rows ended (2 ready)",
        "run b.csv: 2 of 2 rows ended (2 done)",
    ]


def test_what_is_reserved_is_not_spent():
    run = a_run("a.csv", HERE, {"flight": 1}, estimate=5.0, reserved=5.0, budget=9.0)
    status = ClusterStatus(runs=[run], accounts=[])
    [shown] = status_object(status)["runs"]

    assert list(status_lines(status))[1] == "  about $0.00 spent, $5.00 reserved, budget $9.00"
    assert (shown["estimate"], shown["spent"], shown["reserved"]) == (5.0, 0.0, 5.0)


@pytest.mark.parametrize(
    ("rows", "has_failures"),
    [({"done": 2}, False), ({"done": 1, "failed": 1}, True), ({"skipped": 1}, True), ({}, False)],
)
def test_rows_that_failed_or_were_skipped_are_failures(rows, has_failures):
    assert ClusterStatus(runs=[a_run("a.csv", HERE, rows)], accounts=[]).has_failures is has_failures


SURVEY = Survey(rows=1, to_submit=1, under_way=0, done=0, failed=0, estimate=2.0, unknown=0, assumed_seconds=60.0)
ENQUEUED = Enqueued(run="a.csv", rows=1, added=1, changed=0, survey=SURVEY)


@pytest.mark.parametrize(("budget", "shown"), [(None, "none"), (0.0, "$0.00"), (50.0, "$50.00")])
def test_an_enqueue_says_which_budget_the_run_has_from_now_on(budget, shown):
    *_, last = enqueued_lines(ENQUEUED, budget)

    assert last == f"budget of the run from now on: {shown}"
    assert enqueued_object(ENQUEUED, budget)["budget"] == budget


def test_one_row_and_one_worker_are_singular():
    first, second, _ = enqueued_lines(ENQUEUED, None)
    account = AccountStatus(
        name="n",
        origin=HERE,
        in_flight=0,
        in_air=0,
        limit=10,
        refusals=0,
        scheduler=None,
        workers=["w"],
        trouble=None,
    )
    *_, about_workers = status_lines(ClusterStatus(runs=[a_run("a.csv", HERE, {})], accounts=[account]))

    assert first == "run a.csv: 1 row added, 0 known already"
    assert second == "about $2.00 for 1 row to submit"
    assert "1 worker, scheduler none" in about_workers
