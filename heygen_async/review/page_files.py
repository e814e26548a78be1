"""The files of the page itself: HTML, CSS and ES modules, read once."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Final

from attrs import frozen

INDEX: Final = "index.html"
_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


@frozen
class PageFile:
    """One of them."""

    media_type: str
    content: bytes


def read_page_files() -> Mapping[str, PageFile]:
    """Return the files by name; for a thread."""
    found: dict[str, PageFile] = {}
    for file in files("heygen_async.review").joinpath("page").iterdir():
        media_type = next((one for end, one in _TYPES.items() if file.name.endswith(end)), None)
        if media_type is not None:
            found[file.name] = PageFile(media_type, file.read_bytes())
    return found
