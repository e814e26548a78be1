"""The estimated cost of a run, and its limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygen_async.bulk.budget import RATES, Budget, check_budget, check_rates, least_seconds_of, seconds_of
from heygen_async.models import DubRow


@given(st.lists(st.floats(0, 1000), min_size=1), st.data())
def test_nothing_more_can_fit_when_no_job_is_under_way(prices: list[float], data: st.DataObject) -> None:
    budget = Budget(RATES, limit=sum(prices))
    assert all(budget.reserve(price) for price in prices)
    assert budget.may_fit(sum(prices))
    for price in data.draw(st.permutations(prices)):
        budget.settle(price, 0.0)

    assert not budget.may_fit(0.0)
    assert budget.spent == pytest.approx(0.0, abs=1e-6)


_FIXED = {"enable_dynamic_duration": False}


@pytest.mark.parametrize(
    ("options", "video", "audio", "seconds"),
    [
        pytest.param({}, 4.0, None, None, id="an audio of unknown length"),
        pytest.param({}, None, 600.0, 600.0, id="the audio alone says it"),
        pytest.param({}, 4.0, 600.0, 600.0, id="a longer audio"),
        pytest.param({}, 600.0, 4.0, 600.0, id="a longer video"),
        pytest.param({}, None, None, None, id="nothing known"),
        pytest.param(_FIXED, None, 4.0, None, id="a video of unknown length that alone says it"),
        pytest.param(_FIXED, 600.0, None, 600.0, id="the video alone says it"),
        pytest.param({"start_time": 1.0}, None, 600.0, None, id="a part to the end of an unknown video"),
        pytest.param({"start_time": 1.0}, 4.0, 2.0, 3.0, id="a part to the end of a known video"),
        pytest.param({"end_time": 10.0}, 4.0, None, 10.0, id="a part with an end"),
        pytest.param({"end_time": 10.0}, None, 4.0, 4.0, id="a part that ends after the audio"),
        pytest.param({"start_time": 5.0, "end_time": 10.0}, None, None, 5.0, id="a part of something unknown"),
    ],
)
def test_the_length_of_an_output_is_known_if_what_it_follows_is(
    options: dict[str, float], video: float | None, audio: float | None, seconds: float | None
) -> None:
    row = DubRow("https://example.com/v.mp4", "https://example.com/a.mp3", **options)

    assert seconds_of(row, video, audio) == seconds


@pytest.mark.parametrize(("known", "price"), [((600.0, None), 600.0), ((None, 70.0), 70.0), ((4.0, None), 60.0)])
def test_a_guess_is_at_least_what_is_known(known: tuple[float | None, float | None], price: float) -> None:
    row = DubRow("https://example.com/v.mp4", "https://example.com/a.mp3")

    assert Budget({"speed": 1.0}).price("speed", None, at_least=least_seconds_of(row, *known)) == price


def test_a_sum_up_to_the_limit_fits() -> None:
    budget = Budget(RATES, limit=0.3)

    assert [budget.reserve(0.1) for _ in range(4)] == [True, True, True, False]


def test_jobs_under_way_may_cost_less_than_was_reserved() -> None:
    budget = Budget(RATES, limit=5.0, spent=2.0)
    budget.resume(2.0)

    assert not budget.reserve(4.0)
    assert budget.may_fit(4.0)
    budget.settle(2.0, 0.5)
    assert budget.reserve(4.0)
    assert not budget.may_fit(6.0)


def test_rates_are_those_of_2026_unless_given() -> None:
    assert check_rates(None) == {"speed": 0.0333, "precision": 0.0667}
    assert check_rates({"speed": 1}) == {"speed": 1, "precision": 0.0667}


@pytest.mark.parametrize("rate", ["0.05", None, True, [1], b"1"])
def test_a_rate_is_a_number(rate: object) -> None:
    with pytest.raises(TypeError, match="the rate of speed must be a number of dollars"):
        check_rates({"speed": rate})
    if rate is not None:
        with pytest.raises(TypeError, match="budget must be a number of dollars"):
            check_budget(rate)


@pytest.mark.parametrize("dollars", [-0.01, float("inf"), float("nan"), -1])
def test_dollars_are_0_or_more(dollars: float) -> None:
    with pytest.raises(ValueError, match="the rate of precision must be 0 dollars or more"):
        check_rates({"precision": dollars})
    with pytest.raises(ValueError, match="budget must be 0 dollars or more"):
        check_budget(dollars)


@pytest.mark.parametrize("rates", [0.05, "speed", [("speed", 1.0)]])
def test_rates_map_modes(rates: object) -> None:
    with pytest.raises(TypeError, match="rates must map modes"):
        check_rates(rates)
    with pytest.raises(ValueError, match="rates are by mode, speed and precision, not 'fast'"):
        check_rates({"fast": 1.0})


def test_a_negative_length_costs_nothing() -> None:
    assert Budget(RATES).price("speed", -5.0) == 0.0
