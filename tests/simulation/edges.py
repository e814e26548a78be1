"""The edges of the process: where its code takes the time, randomness and ids from, and who hears its warnings."""

import gc
import logging
import random
import sys
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import aiohttp

from heygen_async import _uptime

from .universe import Universe

logging.getLogger("heygen_async").addHandler(logging.NullHandler())  # a worker that rests is no news here


def collect_dead() -> None:
    """Collect all garbage: what runs while it is collected may leave more of it."""
    for _ in range(10):
        if not gc.collect():
            return


@contextmanager
def simulated_edges(universe: Universe) -> Iterator[None]:
    """Let the code of this process take time and randomness from a universe."""
    random.seed(universe.random.random())
    dice = random.Random(universe.random.random())
    ids = lambda: uuid.UUID(int=dice.getrandbits(128), version=4)  # noqa: E731
    tokens = lambda size=8: f"{dice.getrandbits(8 * size):0{2 * size}x}"  # noqa: E731

    def complain(what: object) -> None:
        if not universe.is_dead:  # else it is from what is collected of a dead process
            universe.complaints.append(str(what))

    def warn(message: Warning | str, *_: object, **__: object) -> None:
        complain(message)

    with ExitStack() as patches, warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = warn
        for owner, name, fake in (
            (time, "time", universe.wall),
            (time, "sleep", lambda _: None),  # a thread that waits for another one, which only runs after it
            (uuid, "uuid4", ids),
            (sys, "unraisablehook", lambda one: complain(f"{one.err_msg} {one.exc_value!r}")),
            (sys.modules["secrets"], "token_hex", tokens),
            (_uptime, "since_boot", lambda: universe.now),
            (aiohttp.connector, "monotonic", lambda: universe.now - universe.suspended),
        ):
            patches.enter_context(mock.patch.object(owner, name, fake))
        yield
