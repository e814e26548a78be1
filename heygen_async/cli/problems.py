"""Problems of what was given, collected so that all of them are reported at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from attrs import define, field, frozen

from heygen_async._arguments import check_text
from heygen_async.cli.messages import message_of


@frozen
class ArgumentProblem:
    """Something wrong in what was given."""

    place: str
    """The flag, such as `--video`, or the line and column; may be empty."""
    message: str


class BadArguments(ValueError):
    """Raised when arguments, or what they name, are wrong. It lists every fault; nothing was sent.

    Attributes:
        problems: The faults.
        count: How many there are, if not all of them are listed.
        code: The code in JSON.
    """

    def __init__(self, problems: Sequence[ArgumentProblem], *, count: int | None = None, code: str = "usage") -> None:
        self.problems = list(problems)
        self.count = len(self.problems) if count is None else count
        self.code = code
        super().__init__(f"{self.count} errors; nothing was sent")

    @property
    def more(self) -> int:
        """How many faults are not listed."""
        return self.count - len(self.problems)


@define
class Problems:
    """Collects the problems of arguments, so that all of them are reported at once."""

    found: list[ArgumentProblem] = field(factory=list)

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Turn an error that the body raises for a wrong value into a problem at *place*."""
        try:
            yield
        except (TypeError, ValueError, OSError) as error:
            self.add(place, message_of(error))

    def add(self, place: str, *messages: str) -> None:
        """Add a problem at *place* for each of the messages, which need not repeat its name."""
        named = f"{place.lstrip('-').replace('-', '_').lower()} must "
        shortened = [f"must {one.removeprefix(named)}" if one.startswith(named) else one for one in messages]
        self.found += [ArgumentProblem(place, message) for message in shortened]

    def check(self) -> None:
        """Raise what was found.

        Raises:
            BadArguments: If there are problems.
        """
        if self.found:
            raise BadArguments(self.found)


@contextmanager
def listing_bad_rows() -> Iterator[None]:
    """Turn the `BadRows` that the body raises into `BadArguments`, with all of its problems."""
    from heygen_async.bulk.checks import BadRows  # noqa: PLC0415 most commands have no rows

    try:
        yield
    except BadRows as bad:
        problems = [ArgumentProblem(one.place, one.message) for one in bad.problems]
        raise BadArguments(problems, count=bad.count, code="bad_rows") from bad


def check_texts(**flags: str | None) -> None:
    """Check that each of the *flags* that is given, and not empty, is one line of text.

    Raises:
        BadArguments: If one is not; it names the flag.
    """
    problems = Problems()
    for name, text in flags.items():
        with problems.at(f"--{name.replace('_', '-')}"):
            check_text(name, text or None)
    problems.check()
