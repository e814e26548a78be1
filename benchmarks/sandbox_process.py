"""A sandbox in a process of its own: `python -m benchmarks.sandbox_process SECONDS SEED`.

Jobs take *SECONDS* in the mean, evenly spread from half of that to one and a half. The first line that it prints is the
address and the key; for each line of standard input it prints what it saw, until that is closed.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter

import orjson

from heygen_async.sandbox import Sandbox


async def serve(seconds: float, seed: int) -> None:
    rng = random.Random(seed)
    async with Sandbox(
        account_limit=None,
        balance=1e6,
        job_seconds=lambda _: seconds * rng.uniform(0.5, 1.5),
        lipsync_events=True,
    ) as sandbox:
        print(orjson.dumps({"base_url": sandbox.url, "api_key": sandbox.api_key}).decode(), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(orjson.dumps(_report(sandbox)).decode(), flush=True)


def _report(sandbox: Sandbox) -> dict[str, object]:
    return {
        "jobs": {job.id: [job.created_at, job.ended_at] for job in sandbox.jobs},
        "routes": Counter(request.route for request in sandbox.requests),
    }


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), int(sys.argv[2])))
