"""What a run is thought to cost, and what its budget bears."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygen_async.bulk.money import RATES, Ledger, check_budget, check_rates


@given(st.lists(st.floats(0, 1000), min_size=1), st.data())
def test_a_ledger_hopes_for_nothing_when_nothing_is_under_way(prices: list[float], data: st.DataObject) -> None:
    ledger = Ledger(RATES, budget=sum(prices))
    assert all(ledger.reserve(price) for price in prices)
    assert ledger.may_bear(sum(prices))
    for price in data.draw(st.permutations(prices)):
        ledger.settle(price, 0.0)

    assert not ledger.may_bear(0.0)
    assert ledger.spent == pytest.approx(0.0, abs=1e-6)


def test_a_budget_bears_the_sum_that_it_is() -> None:
    ledger = Ledger(RATES, budget=0.3)

    assert [ledger.reserve(0.1) for _ in range(4)] == [True, True, True, False]


def test_what_is_under_way_may_turn_out_to_leave_room() -> None:
    ledger = Ledger(RATES, budget=5.0, spent=2.0)
    ledger.resume(2.0)

    assert not ledger.reserve(4.0)
    assert ledger.may_bear(4.0)
    ledger.settle(2.0, 0.5)
    assert ledger.reserve(4.0)
    assert not ledger.may_bear(6.0)


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
