"""`heygen-async asset`: files for HeyGen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from heygen_async.cli.options import Options, session
from heygen_async.cli.output import emit, note
from heygen_async.cli.progress import transfer

app: Final = App(name="asset", help="Upload files.")


@app.command
def upload(
    *files: Annotated[Path, Parameter(name="FILE")],
    options: Options = Options(),  # noqa: B008 frozen
) -> None:
    """Upload files, and print what each is called now: as JSON, one in a line.

    Example: heygen-async asset upload source.mp4 new-audio.mp3

    Args:
        files: MP4 or WebM, MP3 or WAV, PNG, JPEG, PDF or SRT.
    """
    if not files:
        raise ValueError("give the file to upload, or several")
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(2, "there is no such file", str(file))
    asyncio.run(_upload(files, options))


async def _upload(files: Sequence[Path], options: Options) -> None:
    async with session(options) as heygen:
        for file in files:
            with transfer(f"uploading {file.name}", options) as progress:
                asset = await heygen.assets.upload(file, progress=progress)
            told = {"url": asset.url, "mime_type": asset.mime_type, "size_bytes": asset.size_bytes}
            emit({"data": {"asset_id": asset.id, **told}}, options)
            note(f"to use it: asset:{asset.id}", options)
