"""Money in a run: how rows wait for room in the budget, and the end of the account's credit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from attrs import define, field

from heygen_async.bulk.budget import Budget, OverBudget
from heygen_async.errors import InsufficientCredit


@define(eq=False)
class Spending:
    """The budget and the credit of a run."""

    budget: Budget
    over_budget: OverBudget | None = None
    no_credit: InsufficientCredit | None = None
    """Why rows are left out, once some are."""
    _changed: asyncio.Event = field(factory=asyncio.Event)

    async def reserve(self, mode: str, seconds: float | None, *, before_waiting: Callable[[], None]) -> float:
        """Reserve the price of a job, and return it; wait while jobs that run may leave room for it.

        Raises:
            OverBudget: If it does not fit.
            InsufficientCredit: If the account is out of credit.
        """
        while True:
            self.check_credit()
            price = self.budget.price(mode, seconds)
            if self.budget.reserve(price, is_guess=seconds is None):
                return price
            if not self.budget.may_fit(price):
                self.over_budget = self._over_budget(is_guess=seconds is None)
                raise self.over_budget
            before_waiting()
            await self._changed.wait()

    def _over_budget(self, *, is_guess: bool) -> OverBudget:
        reason = f"the budget of ${self.budget.limit:,.2f} would be exceeded"
        if is_guess and self.budget.longest:
            reason += f"; the length of this row is not known, and the longest so far was {self.budget.longest:,.0f} s"
        return OverBudget(reason)

    def resume(self, reserved: float, *, is_new: bool = False) -> None:
        """Count a job that exists already; *is_new* if its price is not in the sum yet."""
        if is_new:
            self.budget.spent += reserved
        self.budget.resume(reserved)

    def settle(self, reserved: float, cost: float) -> None:
        """Replace what was reserved for a job that has ended by its cost, and wake the rows that wait for room."""
        self.budget.settle(reserved, cost)
        self._wake()

    def stop(self, error: InsufficientCredit) -> None:
        """Reserve nothing more: the account is out of credit."""
        self.no_credit = self.no_credit or error
        self._wake()

    def check_credit(self) -> None:
        """Check that the account is not known to be out of credit.

        Raises:
            InsufficientCredit: If it is.
        """
        if self.no_credit is not None:
            raise self.no_credit.fresh()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


@define(eq=False)
class Reservation:
    """What a row has reserved for its job, until the cost of the job is known."""

    _spending: Spending
    price: float | None = None

    async def make(self, mode: str, seconds: float | None, *, before_waiting: Callable[[], None]) -> None:
        """Reserve the price of a job, as `Spending.reserve` does."""
        self.price = await self._spending.reserve(mode, seconds, before_waiting=before_waiting)

    def resume(self, price: float, *, is_new: bool = False) -> None:
        """Count a job that exists already; *is_new* if its price is not in the sum yet."""
        self.price = price
        self._spending.resume(price, is_new=is_new)

    def resume_once(self, price: float) -> None:
        """Count the price of an item of an interrupted batch, unless something is reserved."""
        if self.price is None:
            self.resume(price)

    def settle(self, cost: float | None) -> None:
        """Replace what is reserved, if anything is, by the cost of the job."""
        if self.price is not None:
            self._spending.settle(self.price, cost or 0.0)
            self.price = None

    def keep(self) -> None:
        """Leave it in the sum: the job goes on, and is paid."""
        self.price = None
