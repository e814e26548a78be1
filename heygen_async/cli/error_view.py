"""How an error is printed to standard error: a line for each fault and a hint, or a JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cyclopts import (
    Argument,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    Token,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from heygen_async._text import escape_controls, one_line
from heygen_async.cli.exits import Exit, exit_code
from heygen_async.cli.messages import in_shell_words, message_of
from heygen_async.cli.output import print_for_people, to_json
from heygen_async.cli.problems import ArgumentProblem, BadArguments
from heygen_async.errors import APIError, ErrorDetail, HeyGenError, PermissionDenied

if TYPE_CHECKING:
    from heygen_async.models import JSON

_LISTED: Final = 20
"""Problems in the message of a JSON error; `problems` has more of them."""
_KINDS: Final[dict[object, str]] = {float: "a number", int: "a whole number", bool: "true or false"}
_SCOPES: Final = "The API key is valid but lacks a permission: check its scopes, or use another key."


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
    return None if hint is None else escape_controls(hint)  # a command in it keeps its spaces


def _lines(error: BaseException) -> list[str]:
    """Return the lines that describe an *error*: one, or one for each fault."""
    match error:
        case KeyboardInterrupt():
            return [f"interrupted by {error}" if str(error) not in ("", "SIGINT") else "interrupted"]
        case CycloptsError():
            return [_usage_line(error)]
        case BadArguments():
            return [*map(_problem_line, error.problems), *_count_line(error)]
        case APIError():
            return [message_of(error), *map(_fault_line, error.errors)]
        case _:
            return [message_of(error)]


def _usage_line(error: CycloptsError) -> str:
    match error:
        case UnusedCliTokensError() | UnknownCommandError() if text := _unexpected(error):
            return one_line(text)
        case MissingArgumentError(argument=missing) if missing:
            return one_line(_missing(error, missing))
        case UnknownOptionError(token=Token(keyword=None, value="-"), command_chain=("dub",)):
            return "MANIFEST cannot be -: for standard input give /dev/stdin and --journal"
        case CoercionError():
            return one_line(_wrong_value(error))
        case _:
            return message_of(error)


def _wrong_value(error: CoercionError) -> str:
    match error:
        case CoercionError(msg=None, token=Token(keyword=str(flag), value=value), target_type=kind) if kind in _KINDS:
            return f"{flag} must be {_KINDS[kind]}, not {value!r}"
        case CoercionError(msg=str(reason), token=Token(keyword=None), argument=Argument(name=name)):
            return f"{name}: {reason}"
        case CoercionError(token=Token(keyword="--rates" as flag)):
            return f"{flag} are by mode: write {flag}.speed 0.033"
        case _:
            return message_of(error)


def _unexpected(error: CycloptsError) -> str | None:
    """Return what is wrong with the words that are left over; `None` if one of them may be a misspelt command."""
    words = list(error.unused_tokens or ())
    if isinstance(error, UnusedCliTokensError):
        return f"unexpected: {' '.join(words)}"
    return f"unexpected: {words[0]}; flags come after the command" if words and words[0].startswith("-") else None


def _missing(error: MissingArgumentError, argument: Argument) -> str:
    words = list(error.unused_tokens or ())
    if error.keyword is not None:
        is_last = words[-1:] in ([], [error.keyword])
        advice = "" if is_last else f"; one that starts with - is written {argument.name}=VALUE"
        return f"{error.keyword} needs a value{advice}"
    if argument.tokens or any(word.startswith("-") for word in words):  # it may be a misspelt flag
        return message_of(error)
    unexpected = f"; unexpected: {' '.join(words)}" if words else ""
    return f"{argument.name} is missing{unexpected}"


def _problem_line(problem: ArgumentProblem) -> str:
    return in_shell_words(f"{problem.place}: {problem.message}" if problem.place else problem.message)


def _count_line(error: BadArguments) -> list[str]:
    if error.count == 1:
        return []
    return [f"{error.count} errors{f', {error.more} of them not shown' if error.more else ''}; nothing was sent"]


def _fault_line(fault: ErrorDetail) -> str:
    return one_line(f"{fault.path}: {fault.message}" if fault.path else fault.message)


def _code(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if exit_code(error) == Exit.USAGE:
        return "usage"
    if isinstance(error, OSError) and not isinstance(error, HeyGenError):
        return "os_error"
    # WaitTimeout reads as wait_timeout.
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in type(error).__name__).lstrip("_")
