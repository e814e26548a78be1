"""The clients that are measured, one module each."""

from benchmarks.contender import Contender
from benchmarks.contenders import bare_aiohttp, bare_httpx, ours

OURS, BARE = ours.CONTENDER.name, bare_aiohttp.CONTENDER.name
"""Ratios are to these two."""

CONTENDERS: dict[str, Contender] = {
    one.name: one
    for one in (
        ours.CONTENDER,
        bare_aiohttp.CONTENDER,
        bare_httpx.CONTENDER,
    )
}
