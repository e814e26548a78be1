"""The errors that the sandbox answers with, in the API's envelope."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from attrs import evolve, field, frozen


@frozen
class Refusal(Exception):
    """An answer that is not a success, on its way to the client."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after: float | None = None
    others: tuple[Refusal, ...] = field(default=(), kw_only=True)
    """Further errors of the same request."""

    def envelope(self) -> dict[str, object]:
        """Return the body of the answer; it lists the errors if there are several."""
        error: dict[str, object] = {"code": self.code, "message": self.message}
        if self.param is not None:
            error["param"] = self.param
        if self.others:
            error["errors"] = [one.item() for one in (self, *self.others)]
        return {"error": error}

    def item(self) -> dict[str, object]:
        """Return this error as one of a list."""
        item: dict[str, object] = {"code": self.code, "message": self.message}
        return item if self.param is None else {**item, "path": self.param}


class Problems:
    """Collects the errors of one request, so that all of them are answered at once."""

    def __init__(self) -> None:
        self._found: list[Refusal] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep the `Refusal` that the block raises instead of raising it."""
        try:
            yield
        except Refusal as refusal:
            self._found += [evolve(refusal, others=()), *refusal.others]

    def raise_all(self) -> None:
        """Raise one `Refusal` for all that were collected; nothing happens if there are none."""
        if self._found:
            first, *others = self._found
            raise evolve(first, others=tuple(others))


def invalid(message: str, param: str | None = None) -> Refusal:
    """Return the 400 for a parameter that is missing, unknown or wrong."""
    return Refusal(400, "invalid_parameter", message, param)


def not_found(noun: str, name: str, *, code: str = "not_found") -> Refusal:
    """Return the 404 for an id that the sandbox does not know."""
    return Refusal(404, code, f"{noun} {name!r} was not found.")
