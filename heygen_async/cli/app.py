"""The commands under one roof, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError

from heygen_async._version import __version__
from heygen_async.cli.output import Exit, exit_code, tell, wants_json
from heygen_async.errors import HeyGenError

# By path, so that a command imports what it needs and no other's.
COMMANDS: Final = {
    "demo": "heygen_async.cli.demo:demo",
}

app: Final = App(
    name="heygen-async",
    help="Dub videos with HeyGen's v3 Lipsync API.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
for _name, _path in COMMANDS.items():
    app.command(_path, name=_name)


def run(argv: Sequence[str]) -> int:
    """Run one command, and return the exit code."""
    as_json = wants_json("--json" in argv)
    try:
        result = app(list(argv), exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except (CycloptsError, HeyGenError, ValueError, TypeError, OSError) as error:
        return _fail(error, as_json=as_json)
    except ExceptionGroup as group:
        return _fail(_first(group), as_json=as_json)
    return result if isinstance(result, int) else Exit.DONE


def _fail(error: Exception, *, as_json: bool) -> int:
    tell(error, as_json=as_json)
    return exit_code(error)


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """Return the first error of a *group*: tasks that ran beside it were cancelled because of it."""
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
