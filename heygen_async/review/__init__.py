"""The run page: watch the videos of a bulk run, compare them with their sources, and approve or reject them."""

from heygen_async.review.live_rows import LiveRows
from heygen_async.review.page_server import LiveRun, RunPage
from heygen_async.review.run_view import run_view

__all__ = ("LiveRows", "LiveRun", "RunPage", "run_view")
