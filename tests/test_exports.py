"""What the package promises by name."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import heygen_async

PUBLIC = ["diagnosis", "errors", "jobs", "models", "pagination", "policies", "polling", "session", "webhooks"]


def test_all_is_sorted_and_every_name_is_there():
    assert heygen_async.__all__ == sorted(heygen_async.__all__)
    assert all(hasattr(heygen_async, name) for name in heygen_async.__all__)


def test_a_star_import_and_a_type_checker_see_the_same_names():
    tree = ast.parse(Path(heygen_async.__file__).read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.name for node in typed.body for alias in node.names}
    assert imported | {"__version__"} == set(heygen_async.__all__)


def test_the_package_is_imported_without_what_it_does_not_need():
    program = "import sys, heygen_async; from heygen_async import NotFound; print('aiohttp' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        heygen_async.Nothing  # noqa: B018
    assert set(heygen_async.__all__) <= set(dir(heygen_async))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_modules_all_is_true(name):
    module = importlib.import_module(f"heygen_async.{name}")
    assert all(hasattr(module, exported) for exported in module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)


def test_every_error_is_at_the_top():
    errors = importlib.import_module("heygen_async.errors")
    classes = {name for name, thing in vars(errors).items() if isinstance(thing, type) and issubclass(thing, Exception)}
    assert classes <= set(heygen_async.__all__)


def test_the_version_is_in_one_place():
    assert version("heygen-async") == heygen_async.__version__


def test_the_changelog_knows_the_version():
    changelog = Path(__file__).parent.parent.joinpath("CHANGELOG.md").read_text()
    released, is_in_development = heygen_async.__version__, ".dev" in heygen_async.__version__
    heading = "Unreleased" if is_in_development else released
    assert re.search(rf"^## \[{re.escape(heading)}\]", changelog, re.MULTILINE)
    if is_in_development:
        assert f"## [{released.partition('.dev')[0]}]" not in changelog


def public_callables():
    for name in heygen_async.__all__:
        thing = getattr(heygen_async, name)
        if inspect.isclass(thing):
            for method, function in vars(thing).items():
                if not method.startswith("_") and inspect.isfunction(function):
                    yield pytest.param(function, id=f"{name}.{method}")


@pytest.mark.parametrize("function", list(public_callables()))
def test_every_public_method_has_a_docstring(function):
    assert function.__doc__
    assert function.__doc__.strip()
