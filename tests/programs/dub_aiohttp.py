"""Dub in the browser, with aiohttp: an upload form, a callback from HeyGen, and a page that then shows the result.

Serve it where HeyGen can reach it:

    HEYGEN_API_KEY=... PUBLIC_URL=https://app.example.com python dub_aiohttp.py --port 8000
"""

import argparse
import os
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from heygen_async import HeyGenSession
from heygen_async.webhooks import WebhookReceiver

PAGES = Path(__file__).parent
LARGEST_UPLOAD = 200 << 20

HEYGEN = web.AppKey("HEYGEN", HeyGenSession)
RECEIVER = web.AppKey("RECEIVER", WebhookReceiver)
routes = web.RouteTableDef()


@routes.get("/")
async def form(_: web.Request) -> web.FileResponse:
    return web.FileResponse(PAGES / "form.html")


@routes.post("/dubs")
async def create(request: web.Request) -> web.Response:
    sent = await request.post()
    job = await request.app[HEYGEN].lipsyncs.create(
        video=sent["video"].file, audio=sent["audio"].file, callback_url=request.app[RECEIVER].url
    )
    raise web.HTTPSeeOther(f"/dubs/{job.id}")


@routes.get("/dubs/{lipsync_id}")
async def show(_: web.Request) -> web.FileResponse:
    return web.FileResponse(PAGES / "dub.html")


@routes.get("/dubs/{lipsync_id}/events")
async def events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    async for status in request.app[HEYGEN].lipsyncs.job(request.match_info["lipsync_id"]).updates():
        await response.write(f"data: {status}\n\n".encode())
    return response


@routes.get("/dubs/{lipsync_id}/video")
async def video(request: web.Request) -> web.Response:
    lipsync = await request.app[HEYGEN].lipsyncs.get(request.match_info["lipsync_id"])
    raise web.HTTPFound(lipsync.video_url or "/")  # the link expires, so a fresh one each time


async def session(app: web.Application) -> AsyncIterator[None]:
    async with app[HEYGEN]:
        yield


def make_app() -> web.Application:
    app = web.Application(client_max_size=LARGEST_UPLOAD)
    app[HEYGEN] = HeyGenSession()
    # Callbacks are not signed: one makes the poller look at the job, and is not believed otherwise.
    app[RECEIVER] = receiver = WebhookReceiver(secret=None, url=f"{os.environ['PUBLIC_URL']}/heygen")
    receiver.attach(app[HEYGEN].poller)
    app.router.add_route("*", "/heygen", receiver.handle)
    app.add_routes(routes)
    app.cleanup_ctx.append(session)
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    web.run_app(make_app(), host="127.0.0.1", port=parser.parse_args().port, print=None)
