"""What is printed, and where: results on standard output, everything for people on standard error."""

from __future__ import annotations

import asyncio
import enum
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
from cyclopts import CycloptsError, UnusedCliTokensError

from heygen_async.cli.options import MissingKey, Options
from heygen_async.errors import (
    AuthenticationError,
    DownloadError,
    HeyGenError,
    RateLimited,
    ServerError,
    TransportError,
    WaitTimeout,
)
from heygen_async.models import JSON


class Exit(enum.IntEnum):
    """The exit codes that the vendor's tool uses, and the shell's for Ctrl-C."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    AUTH = 3
    TIMED_OUT = 4
    INTERRUPTED = 130


# Results


def wants_json(flag: bool) -> bool:  # noqa: FBT001 it is the value of --json
    """Tell whether to print JSON: asked for, or nobody looks."""
    return flag or not sys.stdout.isatty()


def print_json(data: JSON) -> None:
    """Print *data* as JSON, indented for a terminal."""
    indent = orjson.OPT_INDENT_2 if sys.stdout.isatty() else None
    print(orjson.dumps(data, option=indent).decode(), flush=True)  # noqa: T201 it is the result


def emit(envelope: JSON, options: Options) -> None:
    """Print an answer of the API: as it came if JSON is on, as a person would read it otherwise."""
    if wants_json(options.json):
        print_json(envelope)
        return
    from rich.console import Console  # noqa: PLC0415 it takes longer to load than JSON to print

    from heygen_async.cli.layout import show  # noqa: PLC0415 it imports rich

    show(envelope, Console())


def note(text: str, options: Options) -> None:
    """Tell a person something beside the result; nothing where JSON is on, for nobody reads it there."""
    if not wants_json(options.json):
        print(_printable(text), file=sys.stderr)  # noqa: T201 it is for people


# Errors


def exit_code(error: BaseException) -> Exit:
    """Return the exit code for an *error* that ends a command."""
    match error:
        case AuthenticationError() | MissingKey():
            return Exit.AUTH
        case WaitTimeout():
            return Exit.TIMED_OUT
        case KeyboardInterrupt():
            return Exit.INTERRUPTED
        case FileNotFoundError() | NotADirectoryError() | IsADirectoryError() | PermissionError():
            return Exit.USAGE  # a path that was given is wrong
        case HeyGenError() | OSError():
            return Exit.FAILED
        case _:
            return Exit.USAGE


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """Let what ends the body before its time carry *advice* on how to go on; `tell` prints it as the hint.

    That is Ctrl-C and errors that may pass. With a wrong key nobody can go on.
    """
    try:
        yield
    except (asyncio.CancelledError, WaitTimeout, TransportError, ServerError, RateLimited, DownloadError) as error:
        error.add_note(advice)
        raise


def tell(error: BaseException, *, as_json: bool) -> None:
    """Print an *error* to standard error, as a JSON object or as a line and a hint."""
    if as_json:
        print(orjson.dumps({"error": error_object(error)}).decode(), file=sys.stderr)  # noqa: T201 it is the result
        return
    print(f"heygen-async: {_line(error)}", file=sys.stderr)  # noqa: T201 it is the result
    if hint := _hint(error):
        print(f"  hint: {hint}", file=sys.stderr)  # noqa: T201 it is the result


def error_object(error: BaseException) -> JSON:
    """Return what a script wants to know of an *error*."""
    told = {name: getattr(error, name, None) for name in ("param", "doc_url", "request_id")}
    return {"code": getattr(error, "code", None) or _code(error), "message": _line(error), "hint": _hint(error), **told}


def _hint(error: BaseException) -> str | None:
    if isinstance(error, CycloptsError):
        return " ".join(["heygen-async", *(error.command_chain or ()), "--help"])
    # asyncio makes a KeyboardInterrupt of the CancelledError that came out of the command.
    told = error.__context__ if isinstance(error, KeyboardInterrupt) else error
    notes: list[str] = getattr(told, "__notes__", [])
    return _printable(notes[-1]) if notes else getattr(error, "hint", None)


_KEYWORD = re.compile(r"\b([a-z_]+)=True\b")


def _line(error: BaseException) -> str:
    match error:
        case KeyboardInterrupt():
            return "interrupted"
        case UnusedCliTokensError():
            return f"unexpected: {' '.join(error.unused_tokens or ())}"
        case OSError(filename=str() as name, strerror=str() as reason):
            return _printable(f"{reason}: {name}")
        case HeyGenError():  # it speaks to a program: overwrite=True is --overwrite here
            return _KEYWORD.sub(lambda found: f"--{found[1].replace('_', '-')}", _printable(str(error)))
        case _:
            return _printable(str(error) or type(error).__name__)


def _printable(text: str) -> str:
    """Return *text* on one line, with nothing in it that a terminal would obey: some of it is the server's."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _code(error: BaseException) -> str:
    if exit_code(error) == Exit.USAGE:
        return "usage"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    # WaitTimeout reads as wait_timeout.
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in type(error).__name__).lstrip("_")
