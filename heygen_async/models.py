"""The nouns of the API: frozen values with open enums.

A status or code that this version does not know stays the plain string that the server sent. Fields that it does not
know, and optional ones that it cannot read, are kept in `.extra` as they came. Times are aware datetimes in UTC;
lengths are seconds. Every model has `.to_dict()` and `.to_json()`, can be hashed, and can be returned by a FastAPI
endpoint.
"""

from heygen_async._models.answers import TERMINAL as TERMINAL  # noqa: PLC0414 for the rest of the package
from heygen_async._models.answers import (
    Account,
    ApiKey,
    Asset,
    Batch,
    BatchItem,
    Credits,
    EventType,
    Lipsync,
    LipsyncStatus,
    Subscription,
    SubscriptionCredits,
    UsageBased,
    Wallet,
    WebhookEndpoint,
    WebhookEvent,
)
from heygen_async._models.dub_row import MAX_ROW_KEY as MAX_ROW_KEY  # noqa: PLC0414 the same
from heygen_async._models.dub_row import DubOutcome, DubRow, row_faults
from heygen_async._models.dub_row import FilePath as FilePath  # noqa: PLC0414 the same
from heygen_async._models.dub_row import RowState as RowState  # noqa: PLC0414 the same
from heygen_async._models.lipsync_request import MAX_BATCH as MAX_BATCH  # noqa: PLC0414 the same
from heygen_async._models.lipsync_request import AssetId, FpsMode, LipsyncOptions, LipsyncRequest, Mode, Source
from heygen_async._models.lipsync_request import check_title as check_title  # noqa: PLC0414 the same
from heygen_async._models.model import JSON, Secret
from heygen_async._models.model import restored as restored  # noqa: PLC0414 the same

__all__ = (
    "JSON",
    "Account",
    "ApiKey",
    "Asset",
    "AssetId",
    "Batch",
    "BatchItem",
    "Credits",
    "DubOutcome",
    "DubRow",
    "EventType",
    "FpsMode",
    "Lipsync",
    "LipsyncOptions",
    "LipsyncRequest",
    "LipsyncStatus",
    "Mode",
    "Secret",
    "Source",
    "Subscription",
    "SubscriptionCredits",
    "UsageBased",
    "Wallet",
    "WebhookEndpoint",
    "WebhookEvent",
    "row_faults",
)
