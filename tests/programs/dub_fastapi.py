"""Dub in the browser, with FastAPI: an upload form, a callback from HeyGen, and a page that then shows the result.

Serve it where HeyGen can reach it:

    HEYGEN_API_KEY=... PUBLIC_URL=https://app.example.com uvicorn dub_fastapi:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, UploadFile
from fastapi.responses import FileResponse, RedirectResponse, StreamingResponse
from starlette.routing import Route

from heygen_async import HeyGenSession
from heygen_async.webhooks import WebhookReceiver

PAGES = Path(__file__).parent

heygen = HeyGenSession()
# Callbacks are not signed: one makes the poller look at the job, and is not believed otherwise.
receiver = WebhookReceiver(secret=None, url=f"{os.environ['PUBLIC_URL']}/heygen")
receiver.attach(heygen.poller)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with heygen:
        yield


app = FastAPI(lifespan=lifespan)
app.routes.append(Route("/heygen", receiver))


@app.get("/")
async def form() -> FileResponse:
    return FileResponse(PAGES / "form.html")


@app.post("/dubs")
async def create(video: UploadFile, audio: UploadFile) -> RedirectResponse:
    job = await heygen.lipsyncs.create(video=video.file, audio=audio.file, callback_url=receiver.url)
    return RedirectResponse(f"/dubs/{job.id}", status_code=303)


@app.get("/dubs/{lipsync_id}")
async def show(lipsync_id: str) -> FileResponse:
    return FileResponse(PAGES / "dub.html")


@app.get("/dubs/{lipsync_id}/events")
async def events(lipsync_id: str) -> StreamingResponse:
    async def statuses() -> AsyncIterator[str]:
        async for status in heygen.lipsyncs.job(lipsync_id).updates():
            yield f"data: {status}\n\n"

    return StreamingResponse(statuses(), media_type="text/event-stream")


@app.get("/dubs/{lipsync_id}/video")
async def video(lipsync_id: str) -> RedirectResponse:
    lipsync = await heygen.lipsyncs.get(lipsync_id)  # the link expires, so a fresh one each time
    return RedirectResponse(lipsync.video_url or "/")
