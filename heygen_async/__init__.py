"""The asyncio-first client for HeyGen's v3 Lipsync API.

::

    async with HeyGenSession() as heygen:
        lipsync = await heygen.dub(video="https://...", audio=Path("french.mp3"), output="french.mp4")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from heygen_async._version import __version__

if TYPE_CHECKING:
    from heygen_async._wire import Response
    from heygen_async.bulk.events import DubEvent
    from heygen_async.bulk.run import DubRun
    from heygen_async.errors import (
        APIError,
        AuthenticationError,
        Conflict,
        DownloadError,
        ErrorDetail,
        HeyGenError,
        InsufficientCredit,
        InvalidRequest,
        InvalidSignature,
        LipsyncFailed,
        NotFound,
        PermissionDenied,
        RateLimited,
        RequestTimeout,
        ServerError,
        StaleDelivery,
        TransportError,
        UnexpectedResponse,
        WaitTimeout,
        WebhookError,
    )
    from heygen_async.jobs import LipsyncBatch, LipsyncJob
    from heygen_async.models import (
        Account,
        ApiKey,
        Asset,
        AssetId,
        Batch,
        BatchItem,
        Credits,
        DubOutcome,
        DubRow,
        EventType,
        Lipsync,
        LipsyncOptions,
        LipsyncRequest,
        LipsyncStatus,
        Secret,
        Subscription,
        SubscriptionCredits,
        UsageBased,
        Wallet,
        WebhookEndpoint,
        WebhookEvent,
    )
    from heygen_async.pagination import Page, Paginator
    from heygen_async.policies import PollPolicy, RetryPolicy, Timeouts
    from heygen_async.polling import LipsyncPoller, PollerSnapshot
    from heygen_async.session import HeyGenSession
    from heygen_async.webhooks import WebhookReceiver

__all__ = [
    "APIError",
    "Account",
    "ApiKey",
    "Asset",
    "AssetId",
    "AuthenticationError",
    "Batch",
    "BatchItem",
    "Conflict",
    "Credits",
    "DownloadError",
    "DubEvent",
    "DubOutcome",
    "DubRow",
    "DubRun",
    "ErrorDetail",
    "EventType",
    "HeyGenError",
    "HeyGenSession",
    "InsufficientCredit",
    "InvalidRequest",
    "InvalidSignature",
    "Lipsync",
    "LipsyncBatch",
    "LipsyncFailed",
    "LipsyncJob",
    "LipsyncOptions",
    "LipsyncPoller",
    "LipsyncRequest",
    "LipsyncStatus",
    "NotFound",
    "Page",
    "Paginator",
    "PermissionDenied",
    "PollPolicy",
    "PollerSnapshot",
    "RateLimited",
    "RequestTimeout",
    "Response",
    "RetryPolicy",
    "Secret",
    "ServerError",
    "StaleDelivery",
    "Subscription",
    "SubscriptionCredits",
    "Timeouts",
    "TransportError",
    "UnexpectedResponse",
    "UsageBased",
    "WaitTimeout",
    "Wallet",
    "WebhookEndpoint",
    "WebhookError",
    "WebhookEvent",
    "WebhookReceiver",
    "__version__",
]

# Where the names live, light ones first. They are imported on first use: pytest loads our plugin, and with it this
# package, in every run, and so does a program that needs one error only.
_HOMES: Final = (
    "errors",
    "models",
    "pagination",
    "_wire",
    "policies",
    "session",
    "polling",
    "jobs",
    "webhooks",
    "bulk.events",
    "bulk.run",
)


def __getattr__(name: str) -> object:
    if name in __all__:
        for home in _HOMES:
            module = import_module(f"{__name__}.{home}")
            if hasattr(module, name):
                globals()[name] = found = getattr(module, name)
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
