"""Money in a run: how rows wait for room in the budget, and when nothing more is created."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from attrs import define, field

from heygen_async.bulk.budget import Budget, OverBudget
from heygen_async.bulk.prepared_row import PreparedRow
from heygen_async.errors import HeyGenError


class NoMoreCreates(Exception):
    """Leaves a row out of the run: the account is out of credit, or the API takes no creates for too long."""

    def __init__(self, error: HeyGenError) -> None:
        self.error = error
        super().__init__(str(error))


@define(eq=False)
class Spending:
    """The budget of a run, and whether it may create more."""

    budget: Budget
    over_budget: OverBudget | None = None
    """Why rows are left out, once some are."""
    no_creates: HeyGenError | None = None
    """Why nothing more is created, once that is so."""
    _changed: asyncio.Event = field(factory=asyncio.Event)

    def exceeded(self, *, is_guess: bool) -> OverBudget:
        """Note that a row does not fit the budget, and return why; *is_guess* if its length is not known."""
        reason = f"the budget of ${self.budget.limit:,.2f} would be exceeded"
        if is_guess and self.budget.longest:
            reason += f"; the length of this row is not known, and the longest so far was {self.budget.longest:,.0f} s"
        self.over_budget = OverBudget(reason)
        return self.over_budget

    def stop(self, error: HeyGenError) -> None:
        """Reserve nothing more, because of *error*."""
        self.no_creates = self.no_creates or error
        self.wake()

    def check_open(self) -> None:
        """Check that more may be created.

        Raises:
            NoMoreCreates: If not.
        """
        if self.no_creates is not None:
            raise NoMoreCreates(self.no_creates.fresh())

    async def changed(self) -> None:
        """Wait until there may be more room in the budget, or nothing more is created."""
        await self._changed.wait()

    def wake(self) -> None:
        """Let the rows that wait in `changed` look again."""
        self._changed.set()
        self._changed = asyncio.Event()


@define(eq=False)
class Reservation:
    """What a row has reserved for its job, until the cost of the job is known."""

    _spending: Spending
    price: float | None = None

    async def make(self, row: PreparedRow, *, before_waiting: Callable[[], None]) -> None:
        """Reserve the price of the job of *row*; wait while jobs that run may leave room for it.

        Raises:
            OverBudget: If it does not fit.
            NoMoreCreates: If nothing more is created.
        """
        spending, is_guess = self._spending, row.seconds is None
        while True:
            spending.check_open()
            price = row.price(spending.budget)
            if spending.budget.reserve(price, is_guess=is_guess):
                self.price = price
                return
            if not spending.budget.may_fit(price):
                raise spending.exceeded(is_guess=is_guess)
            before_waiting()
            await spending.changed()

    def resume(self, price: float, *, is_new: bool = False) -> None:
        """Count a job that exists already; *is_new* if its price is not in the sum yet."""
        self.price = price
        if is_new:
            self._spending.budget.spent += price
        self._spending.budget.resume(price)

    def resume_once(self, price: float) -> None:
        """Count the price of an item of an interrupted batch, unless something is reserved."""
        if self.price is None:
            self.resume(price)

    def settle(self, cost: float | None) -> None:
        """Replace what is reserved, if anything is, by the cost of the job, and wake the rows that wait for room."""
        if self.price is not None:
            self._spending.budget.settle(self.price, cost or 0.0)
            self._spending.wake()
            self.price = None

    def keep(self) -> None:
        """Leave it in the sum: the job goes on, and is paid."""
        self.price = None
