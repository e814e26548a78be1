"""The flags of `heygen-async dub` that say how a run goes, as one frozen value, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Literal

import attrs
from cyclopts import Parameter

from heygen_async.cli.number_flags import Count, Dollars, Rates
from heygen_async.cli.options import PathFlag, Switch
from heygen_async.cli.suggestions import flag


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class RunFlags:
    """What `dub_many` takes, under its names."""

    output_dir: PathFlag | None = None
    """The folder to write to; without it only rows with an output are downloaded, beside the manifest."""
    journal: PathFlag | None = None
    """The journal; without it NAME.sqlite beside a manifest NAME.csv. The report NAME.report.csv is beside it."""
    max_in_flight: Count | None = None
    """Jobs at once; without it as many as the account allows."""
    max_attempts: Count = 3
    """Jobs for one row, if jobs fail for reasons that a retry can help with."""
    budget: Dollars | None = None
    """Stop submitting when the estimate for all runs on the journal would exceed it. An output of unknown length counts
    as 60 s, or as the longer source of its row, until one row, which runs first, has shown a length."""
    rates: Rates | None = None
    """Dollars per second of output, for the estimate; without it --rates.speed 0.0333 --rates.precision 0.0667."""
    submit: Literal["each", "batch"] = "each"
    """Each row on its own, or batches of up to 100, which HeyGen queues."""
    captions: Switch = False
    """Write captions too, as .srt beside each video."""
    retry_failed: Switch = False
    """Create another job for rows that failed in earlier runs."""
    redo_rejected: Switch = False
    """Create another job for rows whose video was rejected in the review; they may have changed. The new files replace
    the rejected ones."""

    def words(self) -> list[str]:
        """Return the words of a command line with these flags, as far as they differ from the defaults."""
        given = ((one, getattr(self, one.name)) for one in attrs.fields(type(self)))
        words = (_words(f"--{one.name.replace('_', '-')}", value) for one, value in given if value != one.default)
        return list(chain.from_iterable(words))


def _words(name: str, value: object) -> Iterator[str]:
    match value:
        case True:
            yield name
        case Mapping():
            for key, one in value.items():
                yield from _words(f"{name}.{key}", one)
        case float():
            yield from flag(name, str(value).removesuffix(".0"))
        case _:
            yield from flag(name, value)
