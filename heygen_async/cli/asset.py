"""`heygen-async asset`: files for HeyGen."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import App, Parameter

from heygen_async.cli.advice import advising_on_output
from heygen_async.cli.create_request import check_file
from heygen_async.cli.live import transfer
from heygen_async.cli.options import Options, PathFlag, session
from heygen_async.cli.output import emit_one_of_many, note
from heygen_async.cli.problems import Problems

app: Final = App(name="asset", help="Upload files.")


@app.command
def upload(
    *files: Annotated[PathFlag, Parameter(name="FILE", required=True)],
    options: Options = Options(),  # noqa: B008 frozen
) -> Coroutine[Any, Any, None]:
    """Upload files, and print the asset of each: as JSON, one per line.

    Example: heygen-async asset upload source.mp4 new-audio.mp3

    Args:
        files: MP4 or WebM, MP3 or WAV, PNG, JPEG, PDF or SRT.
    """
    problems = Problems()
    for file in files:
        with problems.at(""):
            check_file(file, None)
    problems.check()
    return _upload(files, options)


async def _upload(files: Sequence[Path], options: Options) -> None:
    async with session(options) as heygen:
        for file in files:
            with transfer(f"uploading {file.name}", options) as progress:
                asset = await heygen.assets.upload(file, progress=progress)
            details = {"url": asset.url, "mime_type": asset.mime_type, "size_bytes": asset.size_bytes}
            to_use = f"to use it: asset:{asset.id}"
            with advising_on_output(f"{asset.id} was uploaded; {to_use}"):
                emit_one_of_many({"data": {"asset_id": asset.id, **details}}, options)
            note(to_use, options)
