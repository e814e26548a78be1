"""The kinds of event loops that programs use."""

import asyncio
import sys

import pytest
import uvloop


def eager_loop():
    """Make a loop whose tasks start at once."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


LOOPS = [
    pytest.param(asyncio.new_event_loop, id="plain"),
    pytest.param(uvloop.new_event_loop, id="uvloop"),
    pytest.param(eager_loop, id="eager", marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="3.12+")),
]
