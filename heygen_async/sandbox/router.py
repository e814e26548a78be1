"""Finds what answers a path. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar
from urllib.parse import unquote

from attrs import field, frozen

from heygen_async.sandbox.refusals import Refusal

T = TypeVar("T")


@frozen
class Match(Generic[T]):
    """What answers, and what stands for the names in its template."""

    target: T
    route: str
    """Method and template, such as `GET /v3/lipsyncs/{lipsync_id}`."""
    names: Mapping[str, str]


@frozen
class _Template(Generic[T]):
    path: str
    segments: list[str]
    targets: dict[str, T] = field(factory=dict)

    def names(self, segments: list[str]) -> dict[str, str] | None:
        if len(segments) != len(self.segments):
            return None
        names: dict[str, str] = {}
        for mine, given in zip(self.segments, segments, strict=True):
            if mine.startswith("{") and given:
                names[mine[1:-1]] = unquote(given)
            elif mine != given:
                return None
        return names


class Router(Generic[T]):
    """Templates in order of precedence: where two fit, the one that was added first answers."""

    def __init__(self, routes: Iterable[tuple[str, str, T]]) -> None:
        self._templates: dict[str, _Template[T]] = {}
        for method, path, target in routes:
            template = self._templates.setdefault(path, _Template(path, path.split("/")))
            template.targets[method] = target

    def find(self, method: str, raw_path: str) -> Match[T]:
        """Return what answers; raise the 404 or the 405 where nothing does."""
        segments, known = raw_path.split("/"), False
        for template in self._templates.values():
            names = template.names(segments)
            if names is None:
                continue
            if method in template.targets:
                return Match(template.targets[method], f"{method} {template.path}", names)
            known = True
        if known:
            raise Refusal(405, "method_not_allowed", f"{method} is not allowed here.")
        raise Refusal(404, "not_found", "There is nothing at this path.")
