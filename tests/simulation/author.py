"""The people around the client: whoever writes the manifests, replaces files, and moves things out of the way."""

import csv
import hashlib
import os
import shutil
from collections import Counter
from pathlib import Path

from attrs import define, evolve, field

from heygen_async.bulk import BadRows
from heygen_async.bulk.identity import FileInfo, inputs_digest
from heygen_async.bulk.manifest import Manifest
from heygen_async.models import DubRow

from .contents import content_name, local_audio, local_video, without_signature
from .disk import SET_TIME
from .scenario import Fault, RowSpec, Scenario
from .universe import Universe

_COLUMNS = ("key", "video", "audio", "title", "callback_id", "output", "captions", "end_time")


@define(eq=False)
class Author:
    """Knows what every row is meant to be."""

    universe: Universe
    scenario: Scenario
    folder: Path
    rows: dict[str, list[RowSpec]] = field(factory=dict)
    """The rows of each manifest, as they are now."""
    accepted: dict[str, list[RowSpec]] = field(factory=dict)
    """The same when they were last accepted."""
    given: dict[str, list[DubRow]] = field(factory=dict)
    """The lists that were given to runs: they change when the manifest is edited."""
    audios: dict[tuple[str, str], list[str]] = field(factory=dict)
    """The audio of each row of a manifest, now and before; the last one is that of now."""
    undone: Counter[tuple[str, str]] = field(factory=Counter)
    """How often the audio of each row was changed back."""
    versions: dict[str, int] = field(factory=dict)
    """The version of each local file, by its path."""
    canons: dict[str, dict[str, str]] = field(factory=dict)
    """Which row of a manifest each job is for, by what it is made of."""
    meant: dict[str, set[str]] = field(factory=dict)
    """What may be at a path: what jobs are made of whose row had that output."""
    digests: dict[str, str] = field(factory=dict)
    """What jobs are made of, by the digest of a row's inputs."""
    foreign: dict[Path, bytes] = field(factory=dict)
    """Files that are not the client's."""
    touched: dict[Path, float] = field(factory=dict)
    """Outputs that somebody has deleted, emptied, replaced or moved, and when they last did."""
    signing: int = 0
    added: int = 0

    def __attrs_post_init__(self) -> None:
        (self.folder / "in").mkdir()
        for journal in ("a", "b"):
            self.rows[journal] = list(self.scenario.rows_of(journal))
            self.accepted[journal] = list(self.rows[journal])
            self.canons[journal] = {}
            self.given[journal] = []
            for row in self.rows[journal]:
                self.audios[journal, row.key] = [row.audio]
                self._make_files(row)
        self.note_meaning()

    # What rows are

    def source(self, which: str, name: str) -> str | Path:
        """Return the URL or the file that a spec calls *name*."""
        kind, _, stem = name.partition(":")
        if kind == "url":
            signed = f"?X-Amz-Date=1&X-Amz-Signature={self.signing:032x}" if len(stem) % 3 == 0 else ""
            return f"https://example.com/{stem}.{'mp4' if which == 'video' else 'mp3'}{signed}"
        plain = stem.replace(":", "_")
        return self.folder / "in" / (f"{plain}.mp4" if which == "video" else f"{plain}.mp3")

    def dub_row(self, spec: RowSpec) -> DubRow:
        """Return the row as the client takes it."""
        return DubRow(
            self.source("video", spec.video),
            self.source("audio", spec.audio),
            key=spec.key,
            title=spec.title,
            callback_id=spec.callback_id,
            output=spec.output,
            captions=spec.captions,
            end_time=spec.end_time,
        )

    def target(self, journal: str, spec: RowSpec) -> Path:
        """Return where the video of a row goes."""
        return self.output_dir(journal) / (spec.output or f"{spec.key.replace(':', '_')}.mp4")

    def output_dir(self, journal: str) -> Path:
        """Return the output folder of a manifest."""
        return self.folder / f"out-{journal}"

    def canon(self, spec: RowSpec) -> str:
        """Return what a job of the row is made of, if it is made now."""
        video, audio = (self._canon_of(self.source(one, getattr(spec, one))) for one in ("video", "audio"))
        return f"{video} + {audio} + {spec.title} + speed"

    def _canon_of(self, source: str | Path) -> str:
        return without_signature(source) if isinstance(source, str) else content_name(source.read_bytes())

    def digest(self, spec: RowSpec) -> str:
        """Return the digest that the client records for the row, computed from what is there now."""
        row = self.dub_row(spec)
        files = {one: _info(getattr(row, one)) for one in ("video", "audio") if isinstance(getattr(row, one), Path)}
        return inputs_digest(row, files)

    def note_meaning(self) -> None:
        """Note what rows are for jobs and paths, as the manifests are now."""
        for journal, rows in self.rows.items():
            for row in rows:
                canon = self.canon(row)
                self.canons[journal][canon] = row.key
                self.digests[self.digest(row)] = canon
                self.meant.setdefault(str(self.target(journal, row)), set()).add(canon)

    def rows_given(self, journal: str) -> list[DubRow] | Manifest:
        """Return the rows for a run: a list, which later edits change, or a manifest."""
        self.signing += 1
        self.note_meaning()
        rows = [self.dub_row(row) for row in self.rows[journal]]
        if self.scenario.seed % 3:
            self.given[journal] = rows
            return rows
        return Manifest(self._write_manifest(journal))

    def _write_manifest(self, journal: str) -> Path:
        path = self.folder / f"{journal}.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            for row in map(self.dub_row, self.rows[journal]):
                values = (getattr(row, name) for name in _COLUMNS)
                writer.writerow(["" if one is None else str(one).lower() if one is True else one for one in values])
        return path

    # What they do

    def edit(self, fault: Fault, journal: str) -> None:
        """Edit a manifest, also while a run uses it."""
        rows = self.rows[journal]
        index = next((at for at, row in enumerate(rows) if row.key == fault.on), None)
        if index is None:
            return
        row = rows[index]
        match fault.what:
            case "row added" | "row on top":
                self.added += 1
                new = RowSpec(key=f"new-{self.added}", video=f"url:new-{self.added}", audio="url:new", title="New")
                rows.insert(0 if fault.what == "row on top" else len(rows), new)
            case "row removed":
                del rows[index]
            case "rows reordered":
                rows.reverse()
            case "output renamed":
                rows[index] = evolve(row, output=f"renamed-{int(fault.at)}-{row.key.replace(':', '_')}.mp4")
            case "outputs swapped":
                other = (index + 1) % len(rows)
                mine, theirs = self.target(journal, row).name, self.target(journal, rows[other]).name
                rows[index], rows[other] = evolve(row, output=theirs), evolve(rows[other], output=mine)
            case "audio changed":
                rows[index] = evolve(row, audio=f"url:{row.key}-take-{int(fault.at)}")
                self.audios.setdefault((journal, row.key), [row.audio]).append(rows[index].audio)
        self.universe.note(f"the manifest {journal} is edited: {fault.what} {fault.on}")
        self.note_meaning()
        if self.scenario.seed % 3:
            self.given[journal][:] = [self.dub_row(one) for one in rows]
        else:
            self._write_manifest(journal)

    def touch_files(self, fault: Fault, journal: str) -> None:  # noqa: C901 a table would be longer
        """Do something to the files of a row."""
        row = next((one for one in self.rows[journal] if one.key == fault.on), None)
        if row is None:
            return
        path = self.target(journal, row)
        path.parent.mkdir(exist_ok=True)
        self.touched[path] = self.universe.now
        match fault.what:
            case "foreign file":
                if not path.exists():
                    self._put(path, f"a film of somebody else's, {fault.at}".encode())
            case "output replaced":
                self._put(path, f"an edited film, {fault.at}".encode())
            case "foreign part":
                part = path.with_name(f"{path.name}.part")
                if not part.exists():
                    self._put(part, f"a part of somebody else's, {fault.at}".encode())
            case "output deleted":
                path.unlink(missing_ok=True)
                self.foreign.pop(path, None)
            case "output emptied":
                if path.exists() and path not in self.foreign:
                    path.write_bytes(b"")
            case "source changed":
                self._change_source(row)
        self.universe.note(f"{fault.what}: {fault.on}")

    def _put(self, path: Path, content: bytes) -> None:
        draft = path.with_name(f"draft-{path.name}")
        draft.write_bytes(content)
        draft.replace(path)
        self.foreign[path] = content

    def _make_files(self, row: RowSpec) -> None:
        for which in ("video", "audio"):
            source = self.source(which, getattr(row, which))
            if isinstance(source, Path):
                self._write_source(source, 0)

    def _change_source(self, row: RowSpec) -> None:
        source = self.source("audio", row.audio)
        if isinstance(source, Path):
            self._write_source(source, 1 - self.versions[str(source)])
            self.note_meaning()

    def change_sources(self, journal: str) -> None:
        """Replace all local audio files of a manifest, as when they are encoded again."""
        for row in self.rows[journal]:
            self._change_source(row)
        self.universe.note("all local sources change")

    def _write_source(self, path: Path, version: int) -> None:
        """Write a local file: each version has the same length, and the times of the other."""
        make = local_video if path.suffix == ".mp4" else local_audio
        draft = path.with_name("draft")  # a new file, because the clock of file times is coarse
        draft.write_bytes(make(f"{path.stem}-v{version}"))
        os.utime(draft, (SET_TIME, SET_TIME))
        draft.replace(path)
        self.versions[str(path)] = version

    def was_touched(self, path: Path) -> bool:
        """Return whether somebody has done something to an output."""
        return path in self.touched

    def was_just_touched(self, path: Path) -> bool:
        """Return whether that was so short ago that the client cannot know."""
        # It may wait for captions meanwhile: for each attempt until the host counts as silent, and between attempts.
        return self.universe.now - self.touched.get(path, -1e9) < 300.0

    # What they do after a refusal

    def calm_down(self) -> None:
        """Move away what is in the way of the client."""
        for path in list(self.foreign):
            path.unlink(missing_ok=True)
            self.touched[path] = self.universe.now
        self.foreign.clear()

    def remove_outputs(self, journal: str) -> None:
        """Remove the whole output folder of a manifest."""
        shutil.rmtree(self.output_dir(journal), ignore_errors=True)

    def accept(self, journal: str) -> None:
        """Note that the rows were accepted."""
        self.accepted[journal] = list(self.rows[journal])

    def repair(self, journal: str, refused: BadRows) -> None:
        """Do what the client says is to be done: undo changes, move files away."""
        for problem in refused.problems:
            text = str(problem)
            self.universe.note(f"refused: {text}")
            number = int("".join(filter(str.isdigit, problem.place.partition(",")[0])) or 0) - (
                not self.scenario.seed % 3
            )
            if "have changed since" in text:
                self._undo(journal, number - 1)
            elif "the same output" in text:
                row = self.rows[journal][number - 1]
                self.rows[journal][number - 1] = evolve(row, output=f"own-{row.key.replace(':', '_')}.mp4")
        self._move_away(journal)

    def _undo(self, journal: str, index: int) -> None:
        rows = self.rows[journal]
        if not 0 <= index < len(rows):
            return
        row = rows[index]
        audios = self.audios.setdefault((journal, row.key), [row.audio])
        audios.insert(0, audios.pop())
        rows[index] = evolve(row, audio=audios[-1])
        self.undone[journal, row.key] += 1
        if self.undone[journal, row.key] % len(audios) == 0:  # with none of them was it as the client knows it
            for audio in audios:
                self._change_source(evolve(row, audio=audio))

    def _move_away(self, journal: str) -> None:
        """Move whatever is at an output that is not where its row has written it."""
        self.calm_down()
        for row in self.rows[journal]:
            path = self.target(journal, row)
            for suffix in ("", ".part", ".part.etag"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            path.with_suffix(".srt").unlink(missing_ok=True)
            self.touched[path] = self.universe.now


def _info(path: Path) -> FileInfo:
    return FileInfo("", hashlib.sha256(path.read_bytes()).hexdigest(), None)
