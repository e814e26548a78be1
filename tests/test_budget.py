"""The estimated cost of a run, and its limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygen_async.bulk.budget import RATES, Budget, check_budget, check_rates


@given(st.lists(st.floats(0, 1000), min_size=1), st.data())
def test_nothing_more_can_fit_when_no_job_is_under_way(prices: list[float], data: st.DataObject) -> None:
    budget = Budget(RATES, limit=sum(prices))
    assert all(budget.reserve(price) for price in prices)
    assert budget.may_fit(sum(prices))
    for price in data.draw(st.permutations(prices)):
        budget.settle(price, 0.0)

    assert not budget.may_fit(0.0)
    assert budget.spent == pytest.approx(0.0, abs=1e-6)


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
