"""Recordings of a real API: a proxy that makes them, what they consist of, and a sandbox that answers from them.

Run your program through a `RecordingProxy` once. Each exchange becomes a JSON file without secrets, and the proxy says
how it differs from what the sandbox and the models expect. In tests, `Sandbox(recordings=DIR)` answers from the files;
`Sandbox.unused_recordings` is what a program has not repeated, and `RecordedRequest.recording` the file that answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heygen_async.sandbox.recording.exchange import Exchange, Message, load_recordings
    from heygen_async.sandbox.recording.proxy import RecordingProxy

__all__ = ("Exchange", "Message", "RecordingProxy", "load_recordings")


# The proxy has a sandbox, which imports the exchanges: so the proxy is imported on first use.
def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from heygen_async.sandbox.recording import exchange, proxy  # noqa: PLC0415 on first use

    return getattr(proxy if name == "RecordingProxy" else exchange, name)
