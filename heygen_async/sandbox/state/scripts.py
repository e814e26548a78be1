"""How each job goes, read from its create: how long it runs, how it ends, what comes out.

A source URL on the host `sandbox.invalid` scripts its job, so that failures need no special client:

* `https://sandbox.invalid/any.mp4?seconds=600`: it runs for 600 s of sandbox time
* `https://sandbox.invalid/any.mp4?duration=42.5`: its output is 42.5 s long, and billed so
* `https://sandbox.invalid/any.mp4?fail=No+face+was+found`: it fails with that message
* `https://sandbox.invalid/any.mp4?refuse=download_failed`: the create is refused with that code
  (`download_failed` or `content_policy_violation`); in a batch that item fails alone

Any other URL gives the sample video: the sandbox never uses the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from attrs import evolve, frozen

from heygen_async.sandbox.error_answers import ErrorAnswer, ErrorCollector, invalid
from heygen_async.sandbox.plain_numbers import plain_number
from heygen_async.sandbox.state.asset_store import AssetStore, StoredAsset

SCRIPT_HOST: Final = "sandbox.invalid"
UNREADABLE_SECONDS: Final = 10.0
"""Length of media whose own cannot be read, such as WebM."""

_REFUSALS: Final = {
    "download_failed": "could not be downloaded.",
    "content_policy_violation": "breaks the content policy.",
}
_VIDEO: Final = frozenset({"video/mp4", "video/webm"})
_AUDIO: Final = frozenset({"audio/mpeg", "audio/wav"})
_MAX_VIDEO: Final = 100 << 20
_MAX_AUDIO: Final = 50 << 20
_LONGEST: Final = 1e6
"""Seconds of output: the price of more may not be a number, and its captions would fill the memory."""


@frozen(kw_only=True)
class JobScript:
    """How one job goes."""

    duration: float
    """Length of the output in seconds."""
    asset: StoredAsset | None = None
    """The upload that becomes the output; None for the sample video."""
    seconds: float | None = None
    """How long it runs, in sandbox time; None for `Settings.job_seconds`."""
    failure: str | None = None
    """Why it fails; None if it does not."""


@frozen
class ScriptReader:
    """Reads the scripts of jobs from their creates and the assets that are there."""

    assets: AssetStore
    sample_seconds: float

    def read(self, body: Mapping[str, object], now: float) -> JobScript:
        """Return the script of a validated create body, or raise an `ErrorAnswer` for its sources."""
        errors, video = ErrorCollector(), None
        with errors.collect():
            video = self._source(body, "video", now)
        with errors.collect():
            self._source(body, "audio", now)
        errors.raise_all()
        duration = self.sample_seconds if video is None else video.duration or UNREADABLE_SECONDS
        script = JobScript(duration=duration, asset=video)
        for name in ("video", "audio"):
            script = _scripted(script, body, name)
        return script

    def _source(self, body: Mapping[str, object], name: str, now: float) -> StoredAsset | None:
        given = body[name]
        if not isinstance(given, dict) or given["type"] == "url":
            return None
        asset = self.assets.usable(given["asset_id"], now)
        _check_media(asset, name)
        return asset


def _check_media(asset: StoredAsset, name: str) -> None:
    types, most = (_VIDEO, _MAX_VIDEO) if name == "video" else (_AUDIO, _MAX_AUDIO)
    param = f"{name}.asset_id"
    if asset.mime_type not in types:
        raise invalid(f"{name} must be {' or '.join(sorted(types))}, not {asset.mime_type}.", param)
    if asset.size_bytes > most:
        raise invalid(f"{name} must be at most {most >> 20} MB.", param)


def _scripted(script: JobScript, body: Mapping[str, object], name: str) -> JobScript:
    given = body[name]
    url = urlsplit(given["url"] if isinstance(given, dict) and given["type"] == "url" else "")
    if url.hostname != SCRIPT_HOST:
        return script
    for key, value in parse_qsl(url.query, keep_blank_values=True):
        step = _STEPS.get(key)
        if step is None:
            raise invalid(f"{SCRIPT_HOST} takes {', '.join(_STEPS)}, not {key!r}.", f"{name}.url")
        script = step(script, value, name)
    return script


def _seconds(script: JobScript, value: str, name: str) -> JobScript:
    return evolve(script, seconds=_number(value, name))


def _duration(script: JobScript, value: str, name: str) -> JobScript:
    duration = _number(value, name)
    if duration > _LONGEST:
        raise invalid(f"{SCRIPT_HOST} makes outputs of at most {_LONGEST:,.0f} seconds.", f"{name}.url")
    return evolve(script, duration=duration)


def _fail(script: JobScript, value: str, name: str) -> JobScript:  # noqa: ARG001 - the steps have one shape
    return evolve(script, failure=value or "The script of this job says so.")


def _refuse(script: JobScript, value: str, name: str) -> JobScript:  # noqa: ARG001 - the steps have one shape
    if value not in _REFUSALS:
        raise invalid(f"{SCRIPT_HOST} can refuse with {', '.join(_REFUSALS)}.", f"{name}.url")
    raise ErrorAnswer(400, value, f"The {name} {_REFUSALS[value]}", f"{name}.url")


_STEPS: Final[Mapping[str, Callable[[JobScript, str, str], JobScript]]] = {
    "seconds": _seconds,
    "duration": _duration,
    "fail": _fail,
    "refuse": _refuse,
}


def _number(value: str, name: str) -> float:
    try:
        found = plain_number(value, float)
    except ValueError:
        found = -1.0
    if found < 0:
        raise invalid(f"{SCRIPT_HOST} takes a number of seconds, not {value!r}.", f"{name}.url")
    return found
