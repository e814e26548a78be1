"""What is printed, and where: results on standard output, everything for people on standard error."""

from __future__ import annotations

import enum
import sys

import orjson
from cyclopts import CycloptsError

from heygen_async.cli.options import MissingKey
from heygen_async.errors import AuthenticationError, HeyGenError, WaitTimeout
from heygen_async.models import JSON


class Exit(enum.IntEnum):
    """The exit codes that the vendor's tool uses, and the shell's for Ctrl-C."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    AUTH = 3
    TIMED_OUT = 4
    INTERRUPTED = 130


def wants_json(flag: bool) -> bool:  # noqa: FBT001 it is the value of --json
    """Tell whether to print JSON: asked for, or nobody looks."""
    return flag or not sys.stdout.isatty()


def print_json(data: JSON) -> None:
    """Print *data* as JSON, indented for a terminal."""
    indent = orjson.OPT_INDENT_2 if sys.stdout.isatty() else None
    print(orjson.dumps(data, option=indent).decode())  # noqa: T201 it is the result


def exit_code(error: Exception) -> Exit:
    """Return the exit code for an *error* that ends a command."""
    match error:
        case AuthenticationError() | MissingKey():
            return Exit.AUTH
        case WaitTimeout():
            return Exit.TIMED_OUT
        case HeyGenError() | OSError():
            return Exit.FAILED
        case _:
            return Exit.USAGE


def tell(error: Exception, *, as_json: bool) -> None:
    """Print an *error* to standard error, as a JSON object or as a line and a hint."""
    hint = _hint(error)
    if as_json:
        print(orjson.dumps({"error": error_object(error)}).decode(), file=sys.stderr)  # noqa: T201 it is the result
        return
    print(f"heygen-async: {_line(error)}", file=sys.stderr)  # noqa: T201 it is the result
    if hint:
        print(f"  hint: {hint}", file=sys.stderr)  # noqa: T201 it is the result


def error_object(error: Exception) -> JSON:
    """Return what a script wants to know of an *error*."""
    told = {name: getattr(error, name, None) for name in ("param", "doc_url", "request_id")}
    return {"code": getattr(error, "code", None) or _code(error), "message": _line(error), "hint": _hint(error), **told}


def _hint(error: Exception) -> str | None:
    if isinstance(error, CycloptsError):
        return "heygen-async --help, or --help after a command"
    return getattr(error, "hint", None)


def _line(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return " ".join(text.split())


def _code(error: Exception) -> str:
    if isinstance(error, CycloptsError):
        return "usage"
    # WaitTimeout reads as wait_timeout.
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in type(error).__name__).lstrip("_")
