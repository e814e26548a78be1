"""The map of the package: who may import whom at run time, and what must not be imported at all."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import heygen_async

PACKAGE = Path(heygen_async.__file__).parent

# Everyone may import errors, models and what an argument may be.
LEAVES = {"errors", "models", "policies", "_arguments", "_ids", "_masking", "_text", "_version"}
MAP = {
    "__init__": {"_transport", "_wire", "jobs", "pagination", "polling", "session", "webhooks"},
    "_arguments": set(),
    "_ids": set(),
    "_masking": set(),
    "_text": set(),
    "policies": set(),
    "_version": set(),
    "errors": set(),
    "models": {"_models"},
    "_models": set(),
    "_values": set(),
    "_events": {"_values"},
    "_wire": set(),
    "pagination": {"_wire", "_transport", "_converter"},
    "_converter": {"_wire", "_values", "_events", "pagination"},
    "_transport": {"_wire"},
    "_media": {"_wire", "_transport", "_converter"},
    "polling": set(),
    "jobs": {"polling", "pagination", "_media"},
    "_delivery": {"_events", "_wire"},
    "webhooks": {"_delivery", "polling"},
    "resources": {"jobs", "_wire", "_transport", "_converter", "pagination", "polling", "_media"},
    "session": {
        "_bulk_calls",
        "resources",
        "jobs",
        "polling",
        "pagination",
        "_media",
        "_transport",
        "_wire",
        "_converter",
        "webhooks",
    },
    "_bulk_calls": {"_media", "pagination", "polling", "resources"},
    "bulk": {"_wire", "_media"},
    "sandbox": set(),
    "cli": {
        "session",
        "jobs",
        "polling",
        "pagination",
        "webhooks",
        "bulk",
        "sandbox",
        "_wire",
        "_transport",
        "_media",
        "__init__",
    },
    "__main__": {"cli"},
}


# What these modules import of ours, for types too: no more and no less.
EXACT = {
    "bulk.__init__": {
        "bulk.budget",
        "bulk.checks",
        "bulk.events",
        "bulk.journal",
        "bulk.manifest",
        "bulk.run",
        "bulk.searching",
        "bulk.store",
        "bulk.survey",
    },
    "bulk.admission": {"bulk.limits", "errors"},
    "bulk.batches": {"bulk.admission", "bulk.intake", "bulk.program", "bulk.record", "errors", "models"},
    "bulk.budget": {"_arguments", "errors", "models"},
    "bulk.checks": {
        "bulk.intake",
        "bulk.journal",
        "bulk.manifest",
        "bulk.outputs",
        "bulk.plan",
        "bulk.record",
        "bulk.store",
        "models",
    },
    "bulk.events": {"models"},
    "bulk.executor": {
        "bulk.admission",
        "bulk.batches",
        "bulk.budget",
        "bulk.events",
        "bulk.intake",
        "bulk.outputs",
        "bulk.program",
        "bulk.purse",
        "bulk.record",
        "bulk.store",
        "errors",
        "models",
        "policies",
    },
    "bulk.folders": set(),
    "bulk.identity": {"_media.names", "_media.targets", "bulk.signatures", "models"},
    "bulk.intake": {
        "_media.sources",
        "_media.targets",
        "bulk.budget",
        "bulk.identity",
        "bulk.journal",
        "bulk.manifest",
        "bulk.outputs",
        "bulk.record",
        "bulk.store",
        "models",
    },
    "bulk.journal": {"_text", "bulk.identity", "bulk.record", "bulk.store"},
    "bulk.limits": set(),
    "bulk.manifest": {"_arguments", "bulk.identity", "bulk.store", "models"},
    "bulk.outputs": {"_media.__init__", "_media.parts", "_media.targets", "bulk.record"},
    "bulk.owner": {"bulk.store", "errors", "models"},
    "bulk.plan": {"_arguments", "bulk.budget", "bulk.events", "bulk.program", "models"},
    "bulk.program": {
        "_wire.__init__",
        "bulk.identity",
        "bulk.intake",
        "bulk.outputs",
        "bulk.record",
        "bulk.searching",
        "bulk.store",
        "errors",
        "models",
    },
    "bulk.purse": {"bulk.budget", "errors"},
    "bulk.record": {"models"},
    "bulk.report": {"_media.targets", "_text", "bulk.intake", "bulk.journal", "bulk.record"},
    "bulk.row_source": {"bulk.manifest", "models"},
    "bulk.run": {
        "bulk.admission",
        "bulk.batches",
        "bulk.budget",
        "bulk.checks",
        "bulk.events",
        "bulk.executor",
        "bulk.folders",
        "bulk.intake",
        "bulk.journal",
        "bulk.limits",
        "bulk.manifest",
        "bulk.owner",
        "bulk.plan",
        "bulk.program",
        "bulk.purse",
        "bulk.report",
        "bulk.row_source",
        "bulk.searching",
        "bulk.store",
        "bulk.survey",
        "errors",
        "models",
    },
    "bulk.searching": {"bulk.record", "bulk.store", "errors", "models"},
    "bulk.signatures": set(),
    "bulk.store": {"_text", "bulk.record", "bulk.signatures", "errors", "models", "policies"},
    "bulk.survey": {"bulk.budget", "bulk.intake", "bulk.program", "bulk.record"},
    "polling.__init__": {"polling.completions", "polling.poller"},
    "polling.schedule": set(),
    "polling.cadence": {"errors", "policies"},
    "polling.waiters": {"models", "policies", "polling.cadence", "polling.schedule"},
    "polling.pages": {"polling.waiters"},
    "polling.board": {
        "_ids",
        "errors",
        "models",
        "policies",
        "polling.cadence",
        "polling.pages",
        "polling.schedule",
        "polling.waiters",
    },
    "polling.requests": {"_ids", "_text", "errors", "models", "policies", "polling.board", "polling.waiters"},
    "polling.completions": {"_ids", "errors", "models", "polling.requests", "polling.waiters"},
    "polling.poller": {
        "_arguments",
        "errors",
        "models",
        "policies",
        "polling.completions",
        "polling.requests",
        "polling.waiters",
    },
}


def rooms():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield pytest.param(path, id=str(path.relative_to(PACKAGE)))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def runtime_imports(tree):
    """Yield the modules that are imported when the module is, leaving out what only type checkers see."""
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        for inner in (
            ast.walk(node) if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) else ()
        ):
            if isinstance(inner, ast.ImportFrom):
                yield inner.module
            elif isinstance(inner, ast.Import):
                yield from (alias.name for alias in inner.names)


@pytest.mark.parametrize("path", list(rooms()))
def test_a_module_imports_only_what_the_map_allows(path):
    room = room_of(path)
    for module in runtime_imports(ast.parse(path.read_text())):
        if module.partition(".")[0] != "heygen_async":
            continue
        target = [*module.split("."), "__init__"][1]
        is_plugin = path.name == "pytest_plugin.py" and target in ("session", "__init__")
        assert target in MAP[room] | LEAVES | {room} or is_plugin, f"{room} imports {target}"


def ours_in(module):
    """Return the modules of ours that *module* imports anywhere, for types too, as their names in the package."""
    imported = set()
    for node in ast.walk(ast.parse((PACKAGE / (module.replace(".", "/") + ".py")).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "heygen_async":
            imported.add(node.module.partition(".")[2] or "__init__")
    return {f"{name}.__init__" if (PACKAGE / name.replace(".", "/")).is_dir() else name for name in imported}


@pytest.mark.parametrize("module", EXACT)
def test_a_module_imports_exactly_what_the_table_says(module):
    assert ours_in(module) == EXACT[module]


def test_every_module_of_an_exact_package_is_in_the_table():
    packages = {module.partition(".")[0] for module in EXACT}
    found = {f"{package}.{path.stem}" for package in packages for path in (PACKAGE / package).glob("*.py")}
    assert found == set(EXACT)


def test_imports_of_an_exact_package_make_no_circle():
    graph, new = {}, set(EXACT)
    while new:
        module = new.pop()
        graph[module] = ours_in(module)
        new |= graph[module] - set(graph)
    TopologicalSorter(graph).prepare()  # raises where there is one


@pytest.mark.parametrize("path", list(rooms()))
def test_only_the_transport_knows_aiohttps_client(path):
    if room_of(path) in ("sandbox", "webhooks"):
        pytest.skip("they are servers")
    imported = set(runtime_imports(ast.parse(path.read_text())))
    if room_of(path) != "_transport":
        assert not {module for module in imported if module.partition(".")[0] == "aiohttp"}


@pytest.mark.parametrize(
    "module",
    [
        "_wire.api_errors",
        "_wire.bodies",
        "_wire.incoming",
        "_wire.outcomes",
        "_wire.outgoing",
        "_ids",
        "_masking",
        "_text",
        "policies",
        "models",
        "_models.answers",
        "_models.dub_row",
        "_models.lipsync_request",
        "_models.model",
        "errors",
        "_values",
        "_events",
        "_delivery",
        "_converter",
        "_transport.keys",
        "_transport.retry",
        "_transport.pacing",
        "polling.board",
        "polling.cadence",
        "polling.pages",
        "polling.schedule",
        "polling.waiters",
        "bulk.budget",
        "bulk.events",
        "bulk.identity",
        "bulk.limits",
        "bulk.record",
        "bulk.signatures",
        "bulk.survey",
    ],
)
def test_what_is_pure_awaits_nothing(module):
    tree = ast.parse((PACKAGE / (module.replace(".", "/") + ".py")).read_text())
    awaits = [node.lineno for node in ast.walk(tree) if isinstance(node, (ast.Await, ast.AsyncWith))]
    assert awaits == []
    clocks = {"asyncio", "random"} if module == "_delivery" else {"asyncio", "random", "time"}  # it takes a time, too
    assert not clocks & set(runtime_imports(tree))


def test_importing_the_package_imports_nothing_heavy_or_optional():
    program = "import sys; from heygen_async import HeyGenSession; print(*sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    heavy = (
        "cyclopts",
        "rich",
        "tinytag",
        "sqlite3",
        "aiolimiter",
        "pytest",
        "dbos",
        "uvloop",
        "aiohttp.web",
    )
    ours = ("heygen_async.cli", "heygen_async.sandbox", "heygen_async.bulk")
    assert not [module for module in found if module in heavy or module.startswith(ours)]
