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


def names_on_the_map():
    """Yield the names that the map gives in parentheses after a module, each with the module."""
    for path, listed in re.findall(r"`([\w/]+\.py)` \(((?:`[\w.]+`(?:, )?)+)\)", MAP):
        yield from ((path, name) for name in re.findall(r"`([\w.]+)`", listed))


def defined_in(path):
    """Return the names that a module, its classes and its functions define."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
            case ast.Assign(targets=targets):
                found |= {inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)}
    return found


def test_every_name_after_a_module_on_the_map_is_defined_in_it():
    names = list(names_on_the_map())
    gone = [(path, name) for path, name in names if not {*name.split(".")} <= defined_in(PACKAGE / path)]
    assert len(names) > 30
    assert gone == []
