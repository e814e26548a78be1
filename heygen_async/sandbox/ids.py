"""Ids as the API makes them, from a seed, so that a run can be repeated."""

from __future__ import annotations

from random import Random


class Ids:
    """Makes ids that no other has."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311 - an id is no secret

    def new(self, prefix: str) -> str:
        """Return an id such as `ls_3f9c...`."""
        return f"{prefix}_{self._random.getrandbits(96):024x}"
