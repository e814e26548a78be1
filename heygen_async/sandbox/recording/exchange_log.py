"""From what has passed to a file: compared, masked, numbered and counted."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from aiohttp import web
from anyio import to_thread
from attrs import define, field

from heygen_async.sandbox.recording.comparison import Comparison, Seen
from heygen_async.sandbox.recording.exchange import Exchange, Message, last_number, save
from heygen_async.sandbox.recording.forwarding import Passage, parsed
from heygen_async.sandbox.recording.masking import ExchangeMask, names_in


@define
class ExchangeLog:
    """Writes exchanges into a directory, each into its own file."""

    directory: Path
    count: int = 0
    """How many were written."""
    differences: Counter[tuple[str, str]] = field(factory=Counter)
    """How often each call differed from what is expected: by call and sentence."""
    _number: int = 0
    _names: set[str] = field(factory=set)

    def prepare(self) -> None:
        """Make the directory, and continue its numbers. For threads.

        Raises:
            OSError: If it cannot be made or read.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._number = last_number(self.directory)

    async def add(self, comparison: Comparison, passage: Passage) -> None:
        """Compare one exchange and write it."""
        self._number += 1
        self._names.update(names_in(passage.answer))
        number, mask = self._number, ExchangeMask(_key_of(passage.request), self._names)
        found = [passage.problem] if passage.problem is not None else await comparison.differences(_seen(passage))
        exchange = _exchange(passage, number, mask, [mask.text(difference) for difference in found])
        self.differences.update((exchange.route or "other calls", difference) for difference in exchange.differences)
        try:
            await to_thread.run_sync(save, exchange, self.directory)
        except OSError as error:  # the program must get its answer all the same: a create has been paid for
            self.differences["recordings", f"an exchange could not be written: {error.strerror}"] += 1
        else:
            self.count += 1


def _key_of(request: web.Request) -> str:
    bearer = request.headers.get("Authorization", "").partition(" ")[2]
    return request.headers.get("X-Api-Key", bearer)


def _seen(passage: Passage) -> Seen:
    request = passage.request
    return Seen(
        method=request.method,
        target=request.raw_path,
        body=passage.sent,
        content_type=request.content_type if passage.sent else "",
        status=passage.status or 0,
        answer=passage.answer,
        is_json=passage.received is not None,
    )


def _exchange(passage: Passage, number: int, mask: ExchangeMask, differences: list[str]) -> Exchange:
    request = passage.request
    return Exchange(
        number=number,
        at=passage.at.isoformat(timespec="milliseconds"),
        seconds=round(time.monotonic() - passage.started, 3),
        method=request.method,
        path="/media" if passage.is_media else mask.text(request.path),
        query=mask.query(request.query),
        request=Message(
            headers=mask.headers(request.headers), json=mask.body(parsed(passage.sent)), size=passage.sent_size
        ),
        status=passage.status,
        answer=Message(
            headers=mask.headers(passage.headers), json=mask.body(passage.answer), size=passage.received_size
        ),
        differences=tuple(differences),
    )
