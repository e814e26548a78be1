"""The map of the package, `heygen_async/README.md`: every module is on it, and every path on it exists."""

import ast
import re
from collections import Counter
from pathlib import Path

import heygen_async

PACKAGE = Path(heygen_async.__file__).parent
MAP = (PACKAGE / "README.md").read_text(encoding="utf-8")


def first_line(path):
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def modules():
    return {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}


def test_every_module_is_on_the_map_with_the_first_line_of_its_docstring():
    lines = set(MAP.splitlines())
    missing = [
        line for name, path in sorted(modules().items()) if (line := f"* `{name}`: {first_line(path)}") not in lines
    ]
    assert missing == []


def test_every_path_on_the_map_exists():
    paths = re.findall(r"`([\w/]+(?:\.py|/))`", MAP) + re.findall(r"`((?:_?[a-z]+)/[a-z_]+)`", MAP)
    gone = [path for path in paths if not any((PACKAGE / f"{path}{suffix}").exists() for suffix in ("", ".py"))]
    assert paths
    assert gone == []


def test_no_two_modules_have_the_same_name():
    names = Counter(path.name for path in modules().values() if not path.name.startswith("__"))
    assert [name for name, count in names.items() if count > 1] == []


def test_the_map_places_thirty_changes():
    table = MAP.partition("## To change X, open Y")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\| (?!---|to change)", table, re.MULTILINE)) >= 30
