"""How an error is printed to standard error: a line for each fault and a hint, or a JSON object."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from attrs import define, field, frozen
from cyclopts import CycloptsError, UnusedCliTokensError

from heygen_async._text import one_line
from heygen_async.cli.exits import Exit, exit_code
from heygen_async.cli.output import print_for_people, to_json
from heygen_async.errors import APIError, DownloadError, ErrorDetail, HeyGenError, PermissionDenied, WaitTimeout
from heygen_async.models import JSON

# A library's message names keyword arguments and types; a shell has flags and paths.
_KEYWORD: Final = re.compile(r"\b([a-z_]+)=True\b")
_LISTED: Final = 20
"""Problems in the message of a JSON error; `problems` has more of them."""
_SCOPES: Final = "The API key is valid but lacks a permission: check its scopes, or use another key."


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
            self.add(place, _lines(error)[0])

    def add(self, place: str, *messages: str) -> None:
        """Add a problem at *place* for each of the messages."""
        self.found += [ArgumentProblem(place, message) for message in messages]

    def check(self) -> None:
        """Raise what was found.

        Raises:
            BadArguments: If there are problems.
        """
        if self.found:
            raise BadArguments(self.found)


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """Add *advice* on how to continue to what interrupts the body: a signal, a timeout, a transient error.

    `print_error` prints it as the hint. Other errors, such as a wrong key, keep their own.
    """
    try:
        yield
    except (asyncio.CancelledError, HeyGenError) as error:
        if not isinstance(error, HeyGenError) or error.is_transient or isinstance(error, (WaitTimeout, DownloadError)):
            error.add_note(advice)
        raise


def print_error(error: BaseException, *, as_json: bool) -> None:
    """Print an *error* to standard error, as a JSON object or as lines and a hint."""
    if as_json:
        print_for_people(to_json({"error": error_object(error)}))
        return
    for line in _lines(error):
        print_for_people(f"heygen-async: {line}")
    if hint := _hint(error):
        print_for_people(f"  hint: {hint}")


def error_object(error: BaseException) -> JSON:
    """Return an *error* as a script reads it; it has `problems` or `errors` if there is a list of them."""
    extra = {name: getattr(error, name, None) for name in ("param", "doc_url", "request_id")}
    known = {"code": getattr(error, "code", None) or _code(error), "message": _message(error)}
    return {**known, "hint": _hint(error), **extra, **_lists(error)}


def _message(error: BaseException) -> str:
    lines = _lines(error)
    return "; ".join([*lines[:_LISTED], *lines[_LISTED:][-1:]]) if isinstance(error, BadArguments) else lines[0]


def _lists(error: BaseException) -> dict[str, JSON]:
    match error:
        case BadArguments():
            problems = [{"place": one.place, "message": in_shell_words(one.message)} for one in error.problems]
            return {"problems": problems}
        case APIError(errors=(_, *_)):
            return {"errors": [{"code": one.code, "message": one.message, "path": one.path} for one in error.errors]}
        case _:
            return {}


def _hint(error: BaseException) -> str | None:
    if isinstance(error, CycloptsError):
        return " ".join(["heygen-async", *(error.command_chain or ()), "--help"])
    # An interrupted command carries the advice. The first note is the most specific one.
    advised = error.__cause__ if isinstance(error, KeyboardInterrupt) else error
    notes: list[str] = getattr(advised, "__notes__", [])
    hint: str | None = notes[0] if notes else getattr(error, "hint", None)
    if hint is None and isinstance(error, PermissionDenied):
        hint = _SCOPES
    return None if hint is None else one_line(hint)


def _lines(error: BaseException) -> list[str]:
    """Return the lines that describe an *error*: one, or one for each fault."""
    match error:
        case KeyboardInterrupt():
            return [f"interrupted by {error}" if str(error) not in ("", "SIGINT") else "interrupted"]
        case UnusedCliTokensError():
            return [one_line(f"unexpected: {' '.join(error.unused_tokens or ())}")]
        case BadArguments():
            return [*map(_problem_line, error.problems), *_count_line(error)]
        case OSError(strerror=str()):
            return [one_line(": ".join(str(part) for part in (error.strerror, error.filename) if part))]
        case APIError():
            return [in_shell_words(str(error)), *map(_fault_line, error.errors)]
        case _:
            return [in_shell_words(str(error) or type(error).__name__)]


def _problem_line(problem: ArgumentProblem) -> str:
    return in_shell_words(f"{problem.place}: {problem.message}" if problem.place else problem.message)


def _count_line(error: BadArguments) -> list[str]:
    if error.count == 1:
        return []
    return [f"{error.count} errors{f', {error.more} of them not shown' if error.more else ''}; nothing was sent"]


def _fault_line(fault: ErrorDetail) -> str:
    return one_line(f"{fault.path}: {fault.message}" if fault.path else fault.message)


def in_shell_words(text: str) -> str:
    """Return a message of the library on one line, with flags and paths in place of keyword arguments and types."""
    text = _KEYWORD.sub(lambda found: f"--{found[1].replace('_', '-')}", text)
    return one_line(text.replace("give a Path", "give its path"))


def _code(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if exit_code(error) == Exit.USAGE:
        return "usage"
    if isinstance(error, OSError) and not isinstance(error, HeyGenError):
        return "os_error"
    # WaitTimeout reads as wait_timeout.
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in type(error).__name__).lstrip("_")
