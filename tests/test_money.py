"""What a run is thought to cost, and what its budget bears."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygen_async.bulk.money import RATES, Ledger


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
