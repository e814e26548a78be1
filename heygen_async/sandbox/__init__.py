"""A HeyGen that runs on this machine: for tests, for demonstrations, for work without a network.

It is as strict as the API and forgets everything when it ends. It uses nothing of the client, so that a mistake
in one cannot hide in the other.

    async with Sandbox() as sandbox:
        ...  # talk to sandbox.url with sandbox.api_key

`heygen_async.sandbox.state.scripts` tells how a source URL scripts its job, to make it fail for instance.
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


# Pytest imports our plugin, and with it this package, in every run; the server is for those who use it.
def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from heygen_async.sandbox import server  # noqa: PLC0415 on first use

    return getattr(server, name)
