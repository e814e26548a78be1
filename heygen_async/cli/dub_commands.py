"""The commands that a bulk run suggests at its end: to continue, retry failed rows, or review. Values in, text out."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from heygen_async.bulk.events import DubSnapshot
from heygen_async.bulk.survey import Survey
from heygen_async.cli.dub_flags import RunFlags
from heygen_async.cli.review_flags import ReviewFlags
from heygen_async.cli.suggestions import command, file, flag

_DESCRIPTORS: Final = ("/dev/fd/", "/proc/")


@frozen
class RunCommands:
    """The commands for a run.

    Args:
        manifest: The manifest.
        flags: The flags that were given.
        review: Those of them that concern the review.
        base_url: The value of --base-url.
    """

    manifest: Path
    flags: RunFlags
    review: ReviewFlags
    base_url: str | None

    def after_rehearsal(self) -> dict[str, str]:
        """Return the commands that estimate the cost of the run and start it, by what they do."""
        run = self._command(self.flags)
        return self._for_rows({"Estimate the cost": f"{run} --dry-run", "Start the run": run})

    def after_dry_run(self, survey: Survey) -> dict[str, str]:
        """Return the commands to run next, by what they do: none if there is nothing to do."""
        commands: dict[str, str] = {}
        if survey.to_submit or survey.under_way:
            commands["Start the run"] = self._command(self.flags)
        if survey.failed:
            commands["Retry the failed rows"] = self._retrying()
        return self._for_rows(commands)

    def after(
        self,
        snapshot: DubSnapshot,
        *,
        is_over_budget: bool,
        is_without_files: bool = False,
        drafts: Path | None = None,
    ) -> dict[str, str]:
        """Return the commands to run next, by what they do.

        Args:
            snapshot: The run at its end.
            is_over_budget: Whether rows were skipped because of the budget.
            is_without_files: Whether there are videos that were not written, for want of a place.
            drafts: The journal, if it has drafts that somebody may want to watch.
        """
        commands: dict[str, str] = {}
        if is_over_budget:
            commands["Continue with a higher budget"] = self._with_another_budget()
        elif _is_unfinished(snapshot):
            commands["Continue"] = self._command(self.flags)
        if snapshot.stages.get("failed"):
            commands["Retry the failed rows"] = self._retrying()
        if is_without_files and self.flags.output_dir is None:
            again = self._command(evolve(self.flags, retry_failed=False))
            commands["Download the videos"] = f"{again} --output-dir PATH"
        commands = self._for_rows(commands)
        if drafts is not None and not self.review.approved and not self.review.review:
            commands["Watch the drafts, and approve or reject them"] = command("review", file(drafts))
        return commands

    def _for_rows(self, commands: dict[str, str]) -> dict[str, str]:
        """Return *commands* that read the rows, by what they do and where the rows must be."""
        if not self._is_descriptor:
            return commands
        return {f"{purpose}, with the same rows on standard input": again for purpose, again in commands.items()}

    @property
    def _is_descriptor(self) -> bool:
        """Whether the manifest is a file that the shell has opened, as `<(command)` does: the next one has not."""
        return str(self.manifest).startswith(_DESCRIPTORS)

    def _with_another_budget(self) -> str:
        return f"{self._command(evolve(self.flags, budget=None))} --budget USD"

    def _retrying(self) -> str:
        return self._command(evolve(self.flags, retry_failed=True))

    def _command(self, flags: RunFlags) -> str:
        url = () if self.base_url is None else flag("--base-url", self.base_url)
        manifest = "/dev/stdin" if self._is_descriptor else file(self.manifest)
        return command("dub", manifest, *flags.words(), *self.review.words(), *url)


def _is_unfinished(snapshot: DubSnapshot) -> bool:
    return bool(snapshot.not_started or snapshot.stages.keys() - {"completed", "failed", "unchanged"})
