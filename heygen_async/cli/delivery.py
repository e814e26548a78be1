"""Where a completed video is written to: the flags --output, --captions and --overwrite."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, TypeAlias

from attrs import field, frozen
from cyclopts import Parameter

from heygen_async import HeyGenSession
from heygen_async._media.targets import target_problems
from heygen_async.cli.options import Options
from heygen_async.cli.progress import transfer

Target: TypeAlias = Annotated[str, Parameter(name=("--output", "-o"), metavar="FILE|FOLDER")]
"""As it was written: a slash at its end makes it a folder, which a `Path` would forget."""


@frozen
class Delivery:
    """A file, or a folder to write into."""

    output: str
    overwrite: bool = field(kw_only=True)
    captions: bool = field(kw_only=True)

    @property
    def path(self) -> Path:
        """The path, with `~` expanded."""
        return Path(self.output).expanduser()

    def problems(self) -> list[str]:
        """Return every reason why nothing can be written there; nothing is written to find out."""
        if self.path.is_dir():
            return [] if os.access(self.path, os.W_OK | os.X_OK) else [f"the folder {self.path} is not writable"]
        if self._is_folder:
            return [f"the folder {self.path} does not exist"]
        return target_problems(self.path, overwrite=self.overwrite, captions=self.captions)

    def check_folder(self) -> None:
        """Check that a folder exists.

        Raises:
            ValueError: If it does not.
        """
        if self._is_folder and not self.path.is_dir():
            raise ValueError(f"--output: the folder {self.path} does not exist")

    @property
    def _is_folder(self) -> bool:
        return self.output.endswith(("/", os.sep))

    async def download(self, heygen: HeyGenSession, lipsync_id: str, options: Options) -> Path:
        """Write the video, and show how far it is.

        Raises:
            HeyGenError: As `HeyGenSession.download` does.
        """
        with transfer("downloading", options) as progress:
            return await heygen.download(
                lipsync_id, self.output, overwrite=self.overwrite, captions=self.captions, progress=progress
            )

    def command(self, lipsync_id: str) -> str:
        """Return the command that downloads a lipsync to the same place."""
        flags = [flag for flag in ("captions", "overwrite") if getattr(self, flag)]
        words = ["heygen-async", "lipsync", "download", lipsync_id, "-o", self.output, *(f"--{flag}" for flag in flags)]
        return shlex.join(words)
