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
    "dub": "heygen_async.cli.dub:dub",
    "lipsync": "heygen_async.cli.lipsync:app",
    "asset": "heygen_async.cli.asset:app",
    "webhook": "heygen_async.cli.webhook:app",
    "account": "heygen_async.cli.account:account",
    "sandbox": "heygen_async.cli.sandbox:sandbox",
    "demo": "heygen_async.cli.demo:demo",
    "completion": "heygen_async.cli.completion:completion",
}
_EPILOGUE: Final = """\
The API key is read from HEYGEN_API_KEY. Where the output is not a terminal it is JSON, and so are errors.

Exit codes: 0 done, 1 the API, the network or a row, 2 usage, 3 a missing or wrong key, 4 timed out, 130 interrupted.
"""

app: Final = App(
    name="heygen-async",
    help="Dub videos with HeyGen's v3 Lipsync API.\n\nExample: heygen-async demo",
    help_epilogue=_EPILOGUE,
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
for _name, _path in COMMANDS.items():
    app.command(_path, name=_name)


def run(argv: Sequence[str]) -> int:
    """Run one command, and return the exit code."""
    as_json = wants_json("--json" in argv)
    if list(argv[:1]) in ([], ["--help"], ["-h"]):
        _load_commands()
    try:
        result = app(list(argv), exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as ended:
        # Whoever read our output has enough; rich, which prints the help, makes a SystemExit of it.
        if not isinstance(ended, BrokenPipeError) and not isinstance(ended.__context__, BrokenPipeError):
            raise
        # Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except (CycloptsError, HeyGenError, ValueError, TypeError, OSError, KeyboardInterrupt, ExceptionGroup) as error:
        first = _first(error)
        tell(first, as_json=as_json)
        return exit_code(first)
    return result if isinstance(result, int) else Exit.DONE


def _load_commands() -> None:
    """Import all commands: the list of them shows what each says of itself."""
    for name in COMMANDS:
        _ = app[name]


def _first(error: BaseException) -> BaseException:
    """Return the first error of a group: tasks that ran beside it were cancelled because of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
