"""Bulk dubbing on many machines: the rows of `dub_many`, with PostgreSQL between the workers.

It needs the extra `heygen-async[cluster]`. `Cluster` is what a program uses.
"""

from heygen_async.bulk.cluster.cluster import Cluster
from heygen_async.bulk.cluster.database import ClusterError, DatabaseLost
from heygen_async.bulk.cluster.enqueue import Enqueued
from heygen_async.bulk.cluster.status import AccountStatus, ClusterStatus, RunStatus

__all__ = (
    "AccountStatus",
    "Cluster",
    "ClusterError",
    "ClusterStatus",
    "DatabaseLost",
    "Enqueued",
    "RunStatus",
)
