"""Jobs to wait for, and how late their ends were seen. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from statistics import mean
from typing import Any

from benchmarks.sample import Sample

MEDIAN, SIGMA = 30.0, 0.4
"""Of the lengths of jobs, which are lognormal: so 32.5 s in the mean, and the longest of 1,000 is about 110 s."""


def lengths_of(jobs: int, *, median: float = MEDIAN, sigma: float = SIGMA) -> dict[str, float]:
    """Return the lengths of so many jobs in seconds, by id: the same each time."""
    rng = random.Random(jobs)
    return {f"ls_{n:024}": rng.lognormvariate(math.log(median), sigma) for n in range(jobs)}


def lateness(sample: Sample) -> list[float]:
    """Return how late the ends were seen, in seconds, in ascending order."""
    ends: Mapping[str, float] = sample.facts["server"]["ends"]
    return sorted(seen - ends[job] for job, seen in sample.facts["seen"].items())


def percentile(sample: Sample, share: float) -> float:
    """Return how late the end is that is seen sooner than all but this share of them."""
    late = lateness(sample)
    return late[int(share * len(late))]


def mean_lateness(sample: Sample) -> float:
    """Return how late the ends were seen in the mean, in seconds."""
    return mean(lateness(sample))


def requests_a_job(sample: Sample) -> float:
    """Return the requests that the server had for each job."""
    server: Mapping[str, Any] = sample.facts["server"]
    return float(sum(server["requests"].values())) / len(server["ends"])
