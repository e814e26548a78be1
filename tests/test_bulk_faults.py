"""A bulk run against a server of which every fifth answer is wrong, late or missing."""

from collections import Counter
from pathlib import Path

import pytest
from bulk_stage import AUDIO, Stage, rows, staged, url

from heygen_async.models import DubRow
from heygen_async.sandbox import SAMPLE_AUDIO, SAMPLE_VIDEO, Fault
from heygen_async.sandbox.faults import (
    cut_download,
    error,
    expired_link,
    html,
    missing,
    no_ranges,
    rate_limited,
    reset,
    server_error,
    truncated,
    unknown_fields,
    wrong_length,
)

_EACH = 0.2 / 8


def _every_fifth() -> list[Fault]:
    """Return faults that together strike one request in five, of the API and of the file host."""
    return [
        server_error(probability=_EACH),
        server_error(status=502, body="html", after=True, probability=_EACH),
        reset(probability=_EACH),
        reset(after=True, probability=_EACH),
        truncated(probability=_EACH),
        html(probability=_EACH),
        rate_limited(retry_after=0, probability=_EACH),
        error(409, "request_in_progress", route="POST /v3/*", probability=_EACH),
        unknown_fields(probability=0.2),
        cut_download(after_bytes=1000, probability=_EACH * 2),
        wrong_length(off_by=10, probability=_EACH),
        no_ranges(probability=_EACH * 2),
        expired_link(probability=_EACH),
        server_error("GET /files/{name}", probability=_EACH * 2),
    ]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_row_completes_despite_the_faults(tmp_path: Path, seed: int) -> None:
    given = [*rows(20), *rows(30, audio=SAMPLE_AUDIO)[20:]]
    async with staged(tmp_path, seed=seed, faults=_every_fifth()) as stage:
        states = await stage.states(given)
        struck = sum(request.fault is not None for request in stage.sandbox.requests)

    assert states == {"completed": 30}
    assert stage.jobs_by_key() == {row.key: 1 for row in given}
    assert stage.files() == {f"{row.key}.mp4" for row in given}
    assert all((tmp_path / "out" / name).read_bytes() == SAMPLE_VIDEO.read_bytes() for name in stage.files())
    assert struck > 20


async def test_runs_that_are_interrupted_repeatedly_complete_despite_the_faults(tmp_path: Path) -> None:
    async with staged(tmp_path, seed=4, faults=_every_fifth()) as stage:
        for patience in (1, 3, 5):
            async with stage.run(rows(15)) as run:
                for _ in range(patience):
                    await anext(run)
        states = await stage.states(rows(15))

    assert set(states) <= {"completed", "unchanged"}
    assert stage.jobs_by_key() == {f"row-{number}": 1 for number in range(1, 16)}
    assert len(stage.files()) == 15


@pytest.mark.parametrize("status", [401, 402, 404])
async def test_a_refusal_of_the_file_host_fails_only_the_row_of_the_file(tmp_path: Path, status: int) -> None:
    """With these statuses the API would refuse the key or the credit, which ends a run."""
    given = [*rows(1, audio=SAMPLE_AUDIO), *rows(4)[1:]]
    refused = error(status, "AccessDenied", route="PUT /uploads/{asset_id}")
    async with staged(tmp_path, faults=[refused]) as stage:
        stage.heygen._calls.transfers.multipart_max = 0
        outcomes = {outcome.key: outcome for outcome in await stage.outcomes(given)}

    assert {key: outcome.state for key, outcome in outcomes.items()} == {
        "row-1": "failed",
        "row-2": "completed",
        "row-3": "completed",
        "row-4": "completed",
    }
    assert f"{status}" in str(outcomes["row-1"].error)


async def test_an_account_without_bulk_statuses_can_dub(tmp_path: Path) -> None:
    async with staged(tmp_path, statuses_available=False) as stage:
        assert await stage.states(rows(12)) == {"completed": 12}


async def test_a_server_that_refuses_uploads_fails_only_rows_with_files(tmp_path: Path) -> None:
    async with staged(tmp_path, faults=[missing("POST /v3/assets")]) as stage:
        states = await _by_key(stage, [*rows(2), DubRow(url(3), SAMPLE_AUDIO, key="local"), DubRow(url(4), AUDIO)])

    assert states.pop("local") == "failed"
    assert Counter(states.values()) == {"completed": 3}


async def _by_key(stage: Stage, given: list[DubRow]) -> dict[str, str]:
    return {outcome.key: outcome.state for outcome in await stage.outcomes(given)}
