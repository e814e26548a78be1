"""The asyncio-first client for HeyGen's v3 Lipsync API.

::

    async with HeyGenSession() as heygen:
        lipsync = await heygen.dub(video="https://...", audio=Path("french.mp3"), output="french.mp4")
"""

from heygen_async._transport.http import Timeouts
from heygen_async._transport.retry import RetryPolicy
from heygen_async._version import __version__
from heygen_async._wire import Response
from heygen_async.errors import (
    APIError,
    AuthenticationError,
    Conflict,
    DownloadError,
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
    Asset,
    AssetId,
    Batch,
    BatchItem,
    Lipsync,
    LipsyncOptions,
    LipsyncRequest,
    LipsyncStatus,
    Secret,
    Wallet,
)
from heygen_async.pagination import Page, Paginator
from heygen_async.polling import LipsyncPoller, PollerSnapshot, PollPolicy
from heygen_async.session import HeyGenSession

__all__ = [
    "APIError",
    "Account",
    "Asset",
    "AssetId",
    "AuthenticationError",
    "Batch",
    "BatchItem",
    "Conflict",
    "DownloadError",
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
    "Timeouts",
    "TransportError",
    "UnexpectedResponse",
    "WaitTimeout",
    "Wallet",
    "WebhookError",
    "__version__",
]
