"""Bulk dubbing: a thousand rows, one command, nothing twice and nothing lost.

`HeyGenSession.dub_many` makes a run of rows; here is what else a program may want of it.
"""

from heygen_async.bulk.budget import OverBudget
from heygen_async.bulk.checks import BadRows
from heygen_async.bulk.events import DubEvent, DubSnapshot
from heygen_async.bulk.journal_file import JournalInUse
from heygen_async.bulk.manifest import Manifest
from heygen_async.bulk.promotion import Reviews, promote, read_reviews
from heygen_async.bulk.reviews import Review
from heygen_async.bulk.run import DubRun
from heygen_async.bulk.searching import InDoubt
from heygen_async.bulk.store import JournalError, Problem
from heygen_async.bulk.survey import Survey

__all__ = (
    "BadRows",
    "DubEvent",
    "DubRun",
    "DubSnapshot",
    "InDoubt",
    "JournalError",
    "JournalInUse",
    "Manifest",
    "OverBudget",
    "Problem",
    "Review",
    "Reviews",
    "Survey",
    "promote",
    "read_reviews",
)
