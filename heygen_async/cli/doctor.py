"""`heygen-async doctor`: check the network, the key, the account and the API."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from itertools import groupby
from shutil import get_terminal_size
from typing import Final

from heygen_async.cli.exits import Exit
from heygen_async.cli.options import Options, session
from heygen_async.cli.output import print_json, print_line, wants_json
from heygen_async.diagnosis import Diagnosis, Level, Verdict

_WIDEST: Final = 100
_NARROWEST: Final = 40
_INDENT: Final = 11
_CALL: Final = re.compile(r"\b(GET) (?=/)")
_NO_BREAK: Final = "\xa0"
_EXITS: Final = {Verdict.READY: Exit.DONE, Verdict.FINDINGS: Exit.FAILED, Verdict.UNAUTHORIZED: Exit.AUTH}


async def doctor(*, options: Options = Options()) -> int:  # noqa: B008 frozen
    """Check the network, the key, the account and the API: read-only, free of charge, and without showing a secret.

    It compares the newest lipsyncs with what this version knows of the API, and says what to do about each finding.
    It exits with 0 if there is none, with 3 if the key is refused, and otherwise with 1.

    Example: heygen-async doctor
    """
    async with session(options) as heygen:
        diagnosis = await heygen.doctor()
    if wants_json(options.json):
        print_json({"data": diagnosis.to_dict()})
    else:
        for line in report(diagnosis, width=max(_NARROWEST, min(get_terminal_size().columns, _WIDEST))):
            print_line(line)
    return _EXITS[diagnosis.verdict]


def report(diagnosis: Diagnosis, *, width: int) -> Iterator[str]:
    """Yield the lines of a *diagnosis*: what is in order, by area; then the findings with what to do; the verdict."""
    yield f"{diagnosis.base_url}, heygen-async {diagnosis.version}, {diagnosis.at:%Y-%m-%d %H:%M} UTC"
    in_order = [check for check in diagnosis.checks if not check.is_finding]
    for area, checks in groupby(in_order, key=lambda check: check.area):
        yield from ("", area.capitalize())
        for check in checks:
            yield from _wrapped(check.level, check.summary, width)
    if diagnosis.findings:
        yield from ("", "Findings")
    for advice, checks in groupby(diagnosis.findings, key=lambda check: check.advice):
        for check in checks:
            yield from _wrapped(check.level, check.summary, width)
        yield from _wrapped("  to do:", advice or "", width)
    yield ""
    yield _conclusion(diagnosis)


def _wrapped(label: str, text: str, width: int) -> list[str]:
    first, rest = f"  {label:<{_INDENT - 2}}", " " * _INDENT
    unbroken = _CALL.sub(rf"\1{_NO_BREAK}", text)
    lines = textwrap.wrap(unbroken, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
    return [line.replace(_NO_BREAK, " ") for line in lines]


def _conclusion(diagnosis: Diagnosis) -> str:
    count = len(diagnosis.findings)
    match diagnosis.verdict:
        case Verdict.READY:
            return "Ready: no findings."
        case Verdict.UNAUTHORIZED:
            return "Not ready: the key is refused."
        case Verdict.FINDINGS:
            findings = f"{count} finding{'' if count == 1 else 's'}"
            is_usable = all(check.level is not Level.ERROR for check in diagnosis.findings)
            return f"Usable, with {findings}." if is_usable else f"Not ready: {findings}."
