"""What many waits cost by the default policy, in virtual time."""

from benchmarks.virtual_waits import virtual_cost


def test_ten_thousand_waits_send_few_requests_and_see_ends_soon() -> None:
    cost = virtual_cost(10_000, latency=0.15)

    assert cost.requests <= 1.4
    assert cost.late <= 0.03
