"""The commands, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from cyclopts import App, CycloptsError

from heygen_async._version import __version__
from heygen_async.cli.error_view import print_error
from heygen_async.cli.exits import Exit, exit_code
from heygen_async.cli.interrupts import Interrupts
from heygen_async.cli.logs import logging_to_stderr
from heygen_async.cli.options import Printing
from heygen_async.cli.output import wants_json
from heygen_async.cli.streams import check_output
from heygen_async.errors import HeyGenError

if TYPE_CHECKING:
    from rich.console import Console

# By path, so that a command imports what it needs and no other's; with its text in the list, which imports none.
COMMANDS: Final = {
    "dub": (
        "heygen_async.cli.dub:dub",
        "Dub every row of a manifest: upload, submit, wait and download, as many at once as the account allows.",
    ),
    "review": (
        "heygen_async.cli.review:review",
        "Watch the videos of a run beside their sources, and approve or reject them, in a page on this machine.",
    ),
    "cluster": (
        "heygen_async.cli.cluster_commands:app",
        "Dub the rows of manifests on many machines, with PostgreSQL between them.",
    ),
    "lipsync": (
        "heygen_async.cli.lipsync:app",
        "Create, get, list, wait for, download, rename and delete lipsyncs.",
    ),
    "asset": (
        "heygen_async.cli.asset:app",
        "Upload files.",
    ),
    "webhook": (
        "heygen_async.cli.webhook:app",
        "Manage webhook endpoints, and listen to events.",
    ),
    "account": (
        "heygen_async.cli.account_balance:account",
        "Print the account of the API key, with its balance where the API returns one.",
    ),
    "doctor": (
        "heygen_async.cli.doctor:doctor",
        "Check the network, the key, the account and the API: read-only, free of charge, and without showing a secret.",
    ),
    "sandbox": (
        "heygen_async.cli.sandbox:sandbox",
        "Run a local sandbox of the API, without an API key, a network or costs, until Ctrl-C.",
    ),
    "demo": (
        "heygen_async.cli.demo:demo",
        "Dub three videos at once in a local sandbox: no API key, no network, no costs.",
    ),
    "completion": (
        "heygen_async.cli.completion:completion",
        "Print the completion script of a shell.",
    ),
}
_NARROWEST: Final = 10
"""Columns that help is laid out in at least: cyclopts never ends where its labels have none."""
_EPILOGUE: Final = """\
The API key is read from HEYGEN_API_KEY. Where the output is not a terminal, results and errors are JSON.

Ctrl-C, SIGTERM and SIGHUP stop a command cleanly, a second one stops it at once. A closed pipe does not stop it:
the work is completed, and what cannot be printed is dropped.

Exit codes: 0 done, 1 the API, the network or a row failed, 2 usage, 3 missing or wrong API key, 4 timed out waiting,
129 SIGHUP, 130 Ctrl-C, 143 SIGTERM.
"""


def make_app(*, is_list: bool = False) -> App:
    """Return the application.

    Args:
        is_list: Whether its help is to list the commands. Only then they get their texts, which would replace the help
            of the command itself.
    """
    app = App(
        name="heygen-async",
        help="Dub videos with HeyGen's v3 Lipsync API.\n\nExample: heygen-async demo",
        help_epilogue=_EPILOGUE,
        version=__version__,
        suppress_keyboard_interrupt=False,
    )
    for name, (path, text) in COMMANDS.items():
        app.command(path, name=name, help=text if is_list else None)
    return app


def run(argv: Sequence[str], interrupts: Interrupts) -> int:
    """Run one command, and return the exit code."""
    as_json = wants_json("--json" in argv)
    try:
        code = _run(argv, interrupts)
        check_output()
    except (CycloptsError, HeyGenError, ValueError, TypeError, OSError, KeyboardInterrupt, ExceptionGroup) as error:
        from heygen_async._task_group import first_error  # noqa: PLC0415 a list of commands needs no event loop

        first = first_error(error)
        code = exit_code(first)
        if code == Exit.USAGE and _is_misread(argv):
            first.add_note("the locale lacks characters of this command: run it again with PYTHONUTF8=1")
        print_error(first, as_json=as_json)
    return code


def _is_misread(argv: Sequence[str]) -> bool:
    """Return whether words have characters that the encoding of the locale, such as ASCII, does not have."""
    if sys.getfilesystemencoding() == "utf-8":
        return False  # what cannot be read is no text
    return any("\udc80" <= char <= "\udcff" for word in argv for char in word)


def _run(argv: Sequence[str], interrupts: Interrupts) -> int:
    app = make_app(is_list=not COMMANDS.keys() & argv)
    command, arguments, _ = app.parse_args(list(argv), exit_on_error=False, print_error=False)
    if "console" in arguments.arguments:
        arguments.arguments["console"] = _console()  # the one that a group of commands keeps has an earlier width
    values = (*arguments.args, *arguments.kwargs.values())
    with logging_to_stderr(max((value.verbose for value in values if isinstance(value, Printing)), default=0)):
        result = command(*arguments.args, **arguments.kwargs)
        if inspect.iscoroutine(result):
            from heygen_async.cli.interruptible import run_interruptible  # noqa: PLC0415 help needs no event loop

            result = run_interruptible(cast("Coroutine[Any, Any, object]", result), interrupts)
    return result if isinstance(result, int) else Exit.DONE


def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415 only help is laid out

    console = Console()
    console.width = max(console.width, _NARROWEST)
    return console
