"""The errors that the sandbox answers with: the API's JSON, and the XML of the file host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from attrs import evolve, field, frozen


@frozen
class ErrorAnswer(Exception):
    """An error of the API, on its way to the client."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after: float | None = None
    others: tuple[ErrorAnswer, ...] = field(default=(), kw_only=True)
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


@frozen
class StorageError(Exception):
    """An error of the file host, which answers in XML as a storage service does."""

    status: int
    code: str
    message: str


class ErrorCollector:
    """Collects the errors of one request, so that all of them are answered at once."""

    def __init__(self) -> None:
        self._errors: list[ErrorAnswer] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keep the `ErrorAnswer` that the block raises instead of raising it."""
        try:
            yield
        except ErrorAnswer as error:
            self._errors += [evolve(error, others=()), *error.others]

    def raise_all(self) -> None:
        """Raise one `ErrorAnswer` for all that were collected; do nothing if there are none."""
        if self._errors:
            first, *others = self._errors
            raise evolve(first, others=tuple(others))


def invalid(message: str, param: str | None = None) -> ErrorAnswer:
    """Return the 400 for a parameter that is missing, unknown or wrong."""
    return ErrorAnswer(400, "invalid_parameter", message, param)
