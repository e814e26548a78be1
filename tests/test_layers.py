"""What each part of the package may import, for types too; what is pure; what is not imported at all."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import heygen_async

PACKAGE = Path(heygen_async.__file__).parent
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}

# What each module or folder at the top imports of ours, for types too: no more and no less. Downwards only.
IMPORTS = {
    "_version": set(),
    "_text": set(),
    "_ids": {"_arguments"},
    "_uptime": set(),
    "_task_group": set(),
    "_arguments": {"_text"},
    "policies": {"_arguments"},
    "_models": {"_arguments", "_text"},
    "models": {"_models"},
    "errors": {"_text", "models"},
    "_masking": {"models"},
    "_values": {"models"},
    "_one_pass": {"_values", "models"},
    "_events": {"_values", "models"},
    "_wire": {"_arguments", "_ids", "_masking", "_text", "errors", "models"},
    "pagination": {"_arguments", "errors"},
    "_lenient_models": {"_events", "_one_pass", "_values", "models"},
    "_converter": {
        *("_arguments", "_ids", "_lenient_models", "_one_pass", "_values", "_wire", "errors", "models", "pagination"),
    },
    "_transport": {
        *("_arguments", "_ids", "_masking", "_text", "_uptime", "_version", "_wire"),
        *("errors", "models", "policies"),
    },
    "_drift": {"_converter", "_models", "_text", "_values", "models"},
    "diagnosis": {"_models"},
    "_doctor": {
        *("_converter", "_drift", "_ids", "_masking", "_task_group", "_text", "_transport", "_version", "_wire"),
        *("diagnosis", "errors", "models", "policies"),
    },
    "_media": {
        *("_arguments", "_converter", "_ids", "_masking", "_task_group", "_text", "_transport", "_wire"),
        *("errors", "models", "policies"),
    },
    "polling": {"_arguments", "_ids", "_text", "errors", "models", "policies"},
    "jobs": {"_arguments", "_media", "models", "pagination", "policies", "polling"},
    "resources": {
        *("_arguments", "_converter", "_ids", "_media", "_transport", "_wire"),
        *("errors", "jobs", "models", "pagination", "polling"),
    },
    "_dub": {"_media", "_transport", "errors", "jobs", "models", "resources"},
    "_bulk_calls": {"_media", "errors", "models", "pagination", "policies", "polling", "resources"},
    "_calls": {
        "_arguments",
        "_bulk_calls",
        "_dub",
        "_media",
        "_transport",
        "models",
        "pagination",
        "policies",
        "polling",
        "resources",
    },
    "bulk": {
        *("_arguments", "_ids", "_media", "_task_group", "_text", "_uptime", "_wire"),
        *("errors", "models", "policies", "polling"),
    },
    "review": {"_arguments", "_media", "_text", "bulk", "models"},
    "session": {
        *("_arguments", "_bulk_calls", "_calls", "_doctor", "_ids", "_media", "_transport", "_wire"),
        *("bulk", "diagnosis", "models", "policies", "polling", "resources"),
    },
    "_delivery": {"_arguments", "_events", "_wire", "errors", "models"},
    "webhooks": {"_arguments", "_delivery", "errors", "models", "polling"},
    "__init__": {
        *("_version", "_wire", "bulk", "errors", "jobs", "models"),
        *("pagination", "policies", "polling", "session", "webhooks"),
    },
    "sandbox": {
        "__init__",
        "_drift",
        "_masking",
        "_text",
        "models",
        "polling",
    },  # its pytest plugin, and its recordings
    "cli": {
        *("__init__", "_arguments", "_ids", "_masking", "_media", "_task_group", "_text", "_values", "_version"),
        *("_wire", "bulk", "diagnosis", "errors", "models", "pagination", "policies", "polling"),
        *("review", "sandbox", "webhooks"),
    },
    "__main__": {"cli"},
}


def imported_by(module):
    """Return the modules of ours that *module* imports anywhere, for types too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "heygen_async":
            source = node.module.partition(".")[2]
            found |= {resolved(source, alias.name) for alias in node.names}
    return found - {module}


def resolved(source, name):
    candidates = (f"{source}.{name}".strip("."), source, f"{source}.__init__".strip("."))
    return next(candidate for candidate in candidates if candidate in MODULES)


IMPURE = {
    *("open", "input", "abspath", "getcwd", "getenv", "now", "today", "utcnow", "monotonic", "perf_counter"),
    *("stat", "exists", "is_file", "is_dir", "iterdir", "resolve", "expanduser", "mkdir", "rename", "unlink"),
    *("read_bytes", "write_bytes", "write_text"),
}
"""Calls of functions and methods that read or change the world around; `read_text` is one as a method only."""


def impure_lines(module):
    """Return the lines of *module* that wait, read a clock or a random number, or use files; inside functions too."""
    return sorted(node.lineno for node in ast.walk(ast.parse(MODULES[module].read_text())) if is_impure(node, module))


def is_impure(node, module):
    match node:
        case ast.Await() | ast.AsyncWith() | ast.AsyncFor():
            return True
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return any(part.is_async for part in node.generators)
        case ast.Call(func=ast.Attribute(attr=name)):
            return name in IMPURE or name == "read_text"
        case ast.Call(func=ast.Name(id=name)):
            return name in IMPURE
        case ast.ImportFrom(module=name):
            names = [name]
        case ast.Import(names=aliases):
            names = [alias.name for alias in aliases]
        case _:
            return False
    impure = {"anyio", "asyncio", "random", "secrets", "time"}
    if module == "_delivery":  # the time is also an argument of it
        impure.remove("time")
    return any(name.partition(".")[0] in impure for name in names)


def outside_imports(module):
    """Yield the modules of others that are imported when *module* is, leaving out what only type checkers see."""
    for node in ast.parse(MODULES[module].read_text()).body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        for inner in ast.walk(node):
            if isinstance(inner, ast.ImportFrom):
                yield inner.module.partition(".")[0]
            elif isinstance(inner, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in inner.names)


@pytest.mark.parametrize("top", IMPORTS)
def test_a_part_of_the_package_imports_exactly_what_the_table_says(top):
    modules = [module for module in MODULES if module.partition(".")[0] == top]
    imported = {found.partition(".")[0] for module in modules for found in imported_by(module)}
    assert imported - {top} == IMPORTS[top]


def test_every_part_of_the_package_is_in_the_table():
    assert {module.partition(".")[0] for module in MODULES} == set(IMPORTS)


def test_imports_make_no_circle_not_even_those_for_types():
    graph = {module: imported_by(module) for module in MODULES}
    TopologicalSorter(graph).prepare()  # raises where there is one


def test_the_sandbox_shares_no_code_with_the_client():
    """The pytest plugin starts a session and drives waits; recordings are compared with the models."""
    sandbox = [module for module in MODULES if module.startswith("sandbox.")]
    sharing = {module for module in sandbox for found in imported_by(module) if not found.startswith("sandbox")}
    assert sharing == {"sandbox.pytest_plugin", "sandbox.recording.comparison", "sandbox.recording.masking"}


@pytest.mark.parametrize("module", MODULES)
def test_only_the_transport_and_servers_know_aiohttp(module):
    if module.partition(".")[0] not in ("_transport", "review", "sandbox", "webhooks"):
        assert "aiohttp" not in set(outside_imports(module))


def claims_to_be_pure(module):
    docstring = ast.get_docstring(ast.parse(MODULES[module].read_text())) or ""
    return "Pure" in docstring or ": pure" in docstring or "pure functions" in docstring


@pytest.mark.parametrize("module", [module for module in MODULES if claims_to_be_pure(module)])
def test_what_claims_to_be_pure_waits_for_nothing_and_reads_no_clock_and_no_file(module):
    assert impure_lines(module) == []


def test_importing_the_package_imports_nothing_heavy_or_optional():
    program = "import sys; from heygen_async import HeyGenSession; print(*sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    heavy = ("cattrs", "cyclopts", "rich", "tinytag", "sqlite3", "aiolimiter", "pytest", "uvloop", "aiohttp.web")
    ours = tuple(f"heygen_async.{name}" for name in ("_doctor", "bulk", "cli", "review", "sandbox"))
    assert not [module for module in found if module in heavy or module.startswith(ours)]
