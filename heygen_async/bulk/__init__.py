"""Bulk dubbing: a thousand rows, one command, nothing twice and nothing lost.

`HeyGenSession.dub_many` makes a run of rows; here is what else a program may want of it.
"""

from heygen_async.bulk.budget import OverBudget
from heygen_async.bulk.journal import JournalError, JournalInUse, Problem
from heygen_async.bulk.manifest import Manifest
from heygen_async.bulk.progress import DubEvent, DubSnapshot
from heygen_async.bulk.runner import BadRows, DubRun
from heygen_async.bulk.survey import Survey

__all__ = (
    "BadRows",
    "DubEvent",
    "DubRun",
    "DubSnapshot",
    "JournalError",
    "JournalInUse",
    "Manifest",
    "OverBudget",
    "Problem",
    "Survey",
)
