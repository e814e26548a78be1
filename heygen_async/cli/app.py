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

# By path, so that a command imports what it needs and no other's; so what it does must be said here.
COMMANDS: Final = {
    "lipsync": ("heygen_async.cli.lipsync:app", "Make, look at, await, fetch, rename and delete lipsyncs."),
    "asset": ("heygen_async.cli.asset:app", "Upload files."),
    "account": ("heygen_async.cli.account:account", "Print the account of the key, and what is left in its wallet."),
    "sandbox": ("heygen_async.cli.sandbox:sandbox", "Run a HeyGen on this machine: no key, no network, no cost."),
    "demo": ("heygen_async.cli.demo:demo", "Dub three videos in such a sandbox, with real files."),
    "completion": ("heygen_async.cli.completion:completion", "Print what makes bash, zsh or fish complete this."),
}
_EPILOGUE: Final = """\
The API key is read from HEYGEN_API_KEY. Where the output is not a terminal it is JSON, and so are errors.

Exit codes: 0 done, 1 the API or the network, 2 usage, 3 no key or a wrong one, 4 timed out waiting, 130 interrupted.
"""

app: Final = App(
    name="heygen-async",
    help="Dub videos with HeyGen's v3 Lipsync API.\n\nExample: heygen-async demo",
    help_epilogue=_EPILOGUE,
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
for _name, (_path, _help) in COMMANDS.items():
    app.command(_path, name=_name, help=_help)


def run(argv: Sequence[str]) -> int:
    """Run one command, and return the exit code."""
    as_json = wants_json("--json" in argv)
    try:
        result = app(list(argv), exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except (CycloptsError, HeyGenError, ValueError, TypeError, OSError, KeyboardInterrupt) as error:
        tell(error, as_json=as_json)
        return exit_code(error)
    except ExceptionGroup as group:
        first = _first(group)
        tell(first, as_json=as_json)
        return exit_code(first)
    return result if isinstance(result, int) else Exit.DONE


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """Return the first error of a *group*: tasks that ran beside it were cancelled because of it."""
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
