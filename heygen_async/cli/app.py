"""The commands, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine, Sequence
from typing import Any, Final, cast

from cyclopts import App, CycloptsError
from rich.console import Console

from heygen_async._version import __version__
from heygen_async.cli.exits import Exit, exit_code
from heygen_async.cli.failures import print_error
from heygen_async.cli.interrupts import Interrupts
from heygen_async.cli.logs import logging_to_stderr
from heygen_async.cli.options import Printing
from heygen_async.cli.output import wants_json
from heygen_async.cli.streams import check_output
from heygen_async.errors import HeyGenError

# By path, so that a command imports what it needs and no other's.
COMMANDS: Final = {
    "dub": "heygen_async.cli.dub:dub",
    "review": "heygen_async.cli.review:review",
    "lipsync": "heygen_async.cli.lipsync:app",
    "asset": "heygen_async.cli.asset:app",
    "webhook": "heygen_async.cli.webhook:app",
    "account": "heygen_async.cli.account:account",
    "sandbox": "heygen_async.cli.sandbox:sandbox",
    "demo": "heygen_async.cli.demo:demo",
    "completion": "heygen_async.cli.completion:completion",
}
_EPILOGUE: Final = """\
The API key is read from HEYGEN_API_KEY. Where the output is not a terminal, results and errors are JSON.

Ctrl-C, SIGTERM and SIGHUP stop a command cleanly, a second one stops it at once. A closed pipe does not stop it:
the work is completed, and what cannot be printed is dropped.

Exit codes: 0 done, 1 the API, the network or a row failed, 2 usage, 3 missing or wrong API key, 4 timed out waiting,
129 SIGHUP, 130 Ctrl-C, 143 SIGTERM.
"""

app: Final = App(
    name="heygen-async",
    help="Dub videos with HeyGen's v3 Lipsync API.\n\nExample: heygen-async demo",
    help_epilogue=_EPILOGUE,
    version=__version__,
    suppress_keyboard_interrupt=False,
)
for _name, _path in COMMANDS.items():
    app.command(_path, name=_name)


def run(argv: Sequence[str], interrupts: Interrupts) -> int:
    """Run one command, and return the exit code."""
    as_json = wants_json("--json" in argv)
    if list(argv[:1]) in ([], ["--help"], ["-h"]):
        _load_commands()
    try:
        code = _run(argv, interrupts)
        check_output()
    except (CycloptsError, HeyGenError, ValueError, TypeError, OSError, KeyboardInterrupt, ExceptionGroup) as error:
        first = _first(error)
        print_error(first, as_json=as_json)
        return exit_code(first)
    return code


def _run(argv: Sequence[str], interrupts: Interrupts) -> int:
    # A console of its own for each run: the one that is kept has the width of the first window.
    command, arguments, _ = app.parse_args(list(argv), console=Console(), exit_on_error=False, print_error=False)
    values = (*arguments.args, *arguments.kwargs.values())
    with logging_to_stderr(max((value.verbose for value in values if isinstance(value, Printing)), default=0)):
        result = command(*arguments.args, **arguments.kwargs)
        if inspect.iscoroutine(result):
            result = interrupts.run(cast("Coroutine[Any, Any, object]", result))
    return result if isinstance(result, int) else Exit.DONE


def _load_commands() -> None:
    """Import all commands, for the list that shows the help of each."""
    for name in COMMANDS:
        _ = app[name]


def _first(error: BaseException) -> BaseException:
    """Return the first error of a group: the other tasks were cancelled because of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
