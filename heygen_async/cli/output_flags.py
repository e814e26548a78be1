"""Where a completed video is written to: the flags --output, --captions and --overwrite."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from attrs import field, frozen
from cyclopts import Parameter

from heygen_async.cli.live import transfer
from heygen_async.cli.options import Options
from heygen_async.cli.suggestions import flag

if TYPE_CHECKING:
    from heygen_async import HeyGenSession
    from heygen_async.models import Lipsync

FileText: TypeAlias = str | Path
"""A text for which shells complete the names of files, because of the `Path`; it is never one."""
Target: TypeAlias = Annotated[FileText, Parameter(name=("--output", "-o"), metavar="FILE|FOLDER")]
"""As it was written: a slash at its end makes it a folder, which a `Path` would forget."""


@frozen
class OutputFlags:
    """A file, or a folder to write into."""

    output: str = field(converter=str)
    overwrite: bool = field(kw_only=True)
    captions: bool = field(kw_only=True)

    def problems(self, lipsync_id: str | None = None) -> list[str]:
        """Return every reason why nothing can be written there; nothing is written to find out.

        Args:
            lipsync_id: The lipsync, whose unfinished download may be there; `None` before it is created.
        """
        from heygen_async._media.targets import target_problems  # noqa: PLC0415 not every command writes files

        if not self.output:
            return ["must not be empty"]
        if self.output == "-":
            return ["must be a file or a folder, not standard output; a file of this name is ./-"]
        path = os.path.expanduser(self.output)  # noqa: PTH111 Path raises where there is no home
        if os.path.isdir(path):  # noqa: PTH112 never raises, whatever the path holds
            return [] if os.access(path, os.W_OK | os.X_OK) else [f"the folder {path} is not writable"]
        if path.endswith(("/", os.sep)):
            return [f"the folder {path} does not exist"]
        return target_problems(Path(path), overwrite=self.overwrite, captions=self.captions, lipsync_id=lipsync_id)

    async def download(
        self,
        heygen: HeyGenSession,
        lipsync: Lipsync | str,
        options: Options,
        *,
        begun: Callable[[], None] | None = None,
    ) -> Path:
        """Write the video, and show how far it is.

        Args:
            heygen: The session.
            lipsync: The lipsync.
            options: How to print.
            begun: Called when something of the video is there.

        Raises:
            HeyGenError: As `HeyGenSession.download` does.
        """
        with transfer("downloading", options) as show:

            def progress(done: int, total: int | None) -> None:
                if begun is not None:
                    begun()
                show(done, total)

            return await heygen.download(
                lipsync, self.output, overwrite=self.overwrite, captions=self.captions, progress=progress
            )

    def command(self, lipsync_id: str, options: Options) -> str:
        """Return the command that downloads a lipsync to the same place."""
        flags = [f"--{flag}" for flag in ("captions", "overwrite") if getattr(self, flag)]
        return options.command("lipsync", "download", lipsync_id, *flag("-o", self.output), *flags)
