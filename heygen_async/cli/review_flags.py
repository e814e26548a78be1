"""The flags of `heygen-async dub` that concern its review: the run page, and final versions of approved rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter

from heygen_async.cli.options import CHOICE, Switch
from heygen_async.cli.problems import Problems
from heygen_async.models import Mode


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class ReviewFlags:
    """Which rows to run, and whether to show the run in a page."""

    approved: Switch = False
    """Render the final versions of the rows that were approved in the review, instead of the rows themselves. It needs
    an --output-dir of its own."""
    mode: Annotated[Mode | None, CHOICE] = None
    """How to render final versions; without it precision."""
    review: Switch = False
    """Show the run in a page on this machine, where its videos can be watched and approved, until Ctrl-C."""

    def check(self, *, output_dir: Path | None, is_kept: bool) -> None:
        """Check the flags.

        Args:
            output_dir: The folder to write to.
            is_kept: Whether the run is neither a rehearsal nor a dry run.

        Raises:
            BadArguments: If they do not fit together.
        """
        problems = Problems()
        if self.mode is not None and not self.approved:
            problems.add("--mode", "is for --approved; the mode of a row is in the manifest")
        if self.approved and output_dir is None:
            problems.add("--output-dir", "is missing: with --approved, give a folder for the final versions")
        if self.review and not is_kept:
            problems.add("--review", "is for a run that is kept, without --sandbox and --dry-run")
        problems.check()

    def words(self) -> list[str]:
        """Return the words of a command line with these flags."""
        given = {"--approved": self.approved, "--review": self.review}
        mode = [] if self.mode is None else ["--mode", self.mode]
        return [*(flag for flag, is_given in given.items() if is_given), *mode]
