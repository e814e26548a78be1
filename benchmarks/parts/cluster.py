"""What a cluster costs: time beside the ideal, requests, refusals and memory, undisturbed and under all mishaps.

200 rows of 2 s with 10 jobs at a time, 4 workers. The ideal is rows x seconds / 10. Ratios and times mean something
only on a machine that has nothing else to do; the counts always do. It starts a PostgreSQL of its own.
"""

from __future__ import annotations

import importlib.util

from benchmarks.bench import Bench
from benchmarks.results import Line, Table

MINUTES = 10.0


async def measure(bench: Bench) -> list[Table]:
    """Measure all scenarios."""
    if importlib.util.find_spec("psycopg") is None:
        return [_none("heygen-async[cluster] is not installed")]
    from benchmarks import cluster_postgres, cluster_trials  # noqa: PLC0415 an extra

    if cluster_postgres.binaries() is None:
        return [_none("there is no PostgreSQL")]
    return await (cluster_trials.few_tables() if bench.is_quick else cluster_trials.all_tables(200, 2.0))


def _none(reason: str) -> Table:
    return Table("Runs of a cluster", "None.", [Line("4 workers", note=reason)])
