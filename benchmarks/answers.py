"""What the canned HeyGen answers, and what clients send it: the same bodies for all who speak to HeyGen. Pure."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import orjson

from benchmarks.contender import Asked, Route, Video

ITEMS = 10_000
"""In the list of jobs."""
PAGE = 100
IDS = [f"ls_{n:024}" for n in range(PAGE)]
LIPSYNC = {
    "id": "ls_abc123",
    "title": "My Lipsync",
    "status": "completed",
    "duration": 42.5,
    "video_url": "https://files.heygen.ai/v.mp4?X-Amz-Signature=" + "0" * 300,
    "callback_id": None,
    "created_at": 1717000000,
    "failure_message": None,
}
ITEM_SIZE = len(orjson.dumps({"data": LIPSYNC}))
"""Bytes of the answer to a `get`: a rival's has as many fields, and is padded to this size."""


def video_url(n: int) -> str:
    """Return the link of a source, for a create."""
    return f"https://example.com/{n}.mp4"


def audio_url(n: int) -> str:
    """Return the link of its audio."""
    return f"https://example.com/{n}.mp3"


def create_body(n: int) -> bytes:
    """Return the body of a create, for those who write it by hand."""
    sources = {"video": {"type": "url", "url": video_url(n)}, "audio": {"type": "url", "url": audio_url(n)}}
    return orjson.dumps({**sources, "mode": "speed", "title": "x"})


def page_number(path: str, parameter: str) -> int:
    """Return the number in a parameter of the path: 300 for `token=300`; 0 if there is none."""
    digits = "".join(filter(str.isdigit, parse_qs(urlsplit(path).query).get(parameter, ["0"])[0]))
    return int(digits or 0)


def _page(asked: Asked) -> object:
    """The tokens "0" to "9900" are the pages of the list."""
    start = page_number(asked.path, "token")
    return _page_from(start, is_last=start + PAGE >= ITEMS)


def _page_from(start: int, *, is_last: bool) -> object:
    items = [{**LIPSYNC, "id": f"ls_{start + n:024}"} for n in range(PAGE)]
    return {"data": items, "next_token": None if is_last else str(start + PAGE), "has_more": not is_last}


def _one(asked: Asked) -> object:
    return {"data": {**LIPSYNC, "id": urlsplit(asked.path).path.rpartition("/")[2]}}


def _statuses(_: Asked) -> object:
    return {"data": [{"video_id": one, "status": "processing"} for one in IDS], "next_token": None}


def _announce(asked: Asked) -> object:
    """Start a direct upload to the storage host."""
    link = f"{asked.origin}/storage?X-Amz-Signature=1"
    return {"data": {"asset_id": "asset_1", "upload_url": link, "upload_headers": {"x-amz-meta-a": "b"}}}


_ASSET = {"data": {"asset_id": "asset_1", "status": "completed"}}

ROUTES = (
    Route("GET /v3/lipsyncs/", _one, is_kept=True),
    Route("GET /v3/lipsyncs/statuses", _statuses(Asked("", "", b"", lambda _: False))),
    Route("GET /v3/lipsyncs?", _page, is_kept=True),
    Route("GET /v3/lipsyncs?limit=100&token=t", _page_from(0, is_last=True)),  # "t1", "t2" and so on: the same page
    Route("POST /v3/lipsyncs", {"data": {"lipsync_id": "ls_abc123"}}),
    Route("POST /v3/assets", _ASSET),
    Route("POST /v3/assets/direct-uploads", _announce),
    Route("POST /v3/assets/asset_1/complete", _ASSET),
    Route("PUT /storage?", {}, headers={"ETag": '"1"'}),
    Route("GET /v.mp4?", Video()),
)
"""HeyGen's."""


def _job(asked: Asked, job: str) -> dict[str, object]:
    link = f"{asked.origin}/v.mp4?X-Amz-Signature=1"
    status = "completed" if asked.is_over(job) else "running"
    return {**LIPSYNC, "id": job, "video_url": link, "status": status, "created_at": asked.begun_at}


def _one_job(asked: Asked) -> object:
    return {"data": _job(asked, urlsplit(asked.path).path.rpartition("/")[2])}


def _jobs(asked: Asked) -> object:
    start = page_number(asked.path, "token")
    items = [_job(asked, job) for job in asked.jobs[start : start + PAGE]]
    has_more = start + PAGE < len(asked.jobs)
    return {"data": items, "next_token": str(start + PAGE) if has_more else None, "has_more": has_more}


def _job_statuses(asked: Asked) -> object:
    ids = parse_qs(urlsplit(asked.path).query)["lipsync_ids"][0].split(",")
    states = [{"video_id": job, "status": "completed" if asked.is_over(job) else "processing"} for job in ids]
    return {"data": states, "next_token": None, "has_more": False}


JOB_ROUTES = (
    Route("GET /v3/lipsyncs/", _one_job),
    Route("GET /v3/lipsyncs/statuses", _job_statuses),
    Route("GET /v3/lipsyncs?", _jobs),
)
"""Instead of those, while there are jobs that run and end."""
