"""A local sandbox of the HeyGen API, for tests, demonstrations, and work without a network.

It is as strict as the API and keeps nothing when it ends. It shares no code with the client, so that a mistake in one
cannot hide in the other.

    async with Sandbox() as sandbox:
        ...  # use sandbox.url with sandbox.api_key

What happens in it can be scripted:

* a job, by its source URL: `https://sandbox.invalid/v.mp4?seconds=600`, `?fail=No+face`, `?duration=42.5`,
  `?refuse=download_failed` (see `Sandbox`);
* a job that runs, by hand: `sandbox.fail(job.id, "No face")`, `sandbox.finish(job.id)`;
* answers and downloads, by `faults=[...]` (see `heygen_async.sandbox.faults`);
* time, with `manual=True` and `await sandbox.advance(seconds)`;
* answers of the real API, with `recordings=DIR` (see `heygen_async.sandbox.recording`).

Afterwards `sandbox.jobs`, `sandbox.requests`, `sandbox.deliveries` and `sandbox.charged` say what happened, and
`await sandbox.reset()` makes it as at its start. All of this is there for programs in other languages too, over HTTP
(see `heygen_async.sandbox.http.control`), and for people, in a browser, at `/_sandbox`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heygen_async.sandbox.server import (
        SAMPLE_AUDIO,
        SAMPLE_VIDEO,
        Fault,
        JobSeconds,
        RecordedDelivery,
        RecordedRequest,
        Sandbox,
        SandboxJob,
    )

__all__ = (
    "SAMPLE_AUDIO",
    "SAMPLE_VIDEO",
    "Fault",
    "JobSeconds",
    "RecordedDelivery",
    "RecordedRequest",
    "Sandbox",
    "SandboxJob",
)


# Pytest imports the plugin, and with it this package, in every run: the server is imported on first use.
def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from heygen_async.sandbox import server  # noqa: PLC0415 on first use

    return getattr(server, name)
