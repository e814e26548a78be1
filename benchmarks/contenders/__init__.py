"""The clients that are measured, one module each."""

from benchmarks.contender import Contender
from benchmarks.contenders import (
    bare_aiohttp,
    bare_httpx,
    ours,
    rival_fal_client,
    rival_hedra_sdk,
    rival_magic_hour,
    rival_openai,
    rival_replicate,
    rival_runwayml,
    rival_syncsdk,
)

OURS, BARE = ours.CONTENDER.name, bare_aiohttp.CONTENDER.name
"""Ratios are to these two."""

CONTENDERS: dict[str, Contender] = {
    one.name: one
    for one in (
        ours.CONTENDER,
        bare_aiohttp.CONTENDER,
        bare_httpx.CONTENDER,
        rival_syncsdk.CONTENDER,
        rival_runwayml.CONTENDER,
        rival_fal_client.CONTENDER,
        rival_replicate.CONTENDER,
        rival_openai.CONTENDER,
        rival_openai.ON_AIOHTTP,
        rival_hedra_sdk.CONTENDER,
        rival_magic_hour.CONTENDER,
    )
}
