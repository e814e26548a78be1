"""What guards every other test."""

import ast
import signal
import socket
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import loopback
import pytest
from blockbuster import BlockingError

from heygen_async import HeyGenSession, RetryPolicy
from heygen_async._media.targets import target_problems


def test_a_program_that_a_test_starts_can_be_interrupted():
    program = "import time; print('ready', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)

        assert process.wait(20) == -signal.SIGINT


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "api.heygen.com", b"example.com"])
def test_no_test_reaches_another_machine(host):
    with pytest.raises(loopback.ReachedOut):
        socket.getaddrinfo(host, 443)

    assert loopback.attempts.pop() == f"socket.getaddrinfo {host}"


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_no_test_connects_to_another_machine(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as one, pytest.raises(loopback.ReachedOut):
        one.connect((host, 443))

    assert loopback.attempts.pop() == f"socket.connect {host}"


async def test_a_session_on_the_real_api_is_refused():
    async with HeyGenSession("key", retry=RetryPolicy(max_attempts=1)) as heygen:
        with pytest.raises(Exception):  # noqa: B017, PT011 whatever becomes of it on its way
            await heygen.account.me()

    assert loopback.attempts
    assert "api.heygen.com" in loopback.attempts[0]
    loopback.attempts.clear()


@pytest.mark.parametrize("host", [None, "", "localhost", "127.0.0.1", "127.8.8.8", "::1", b"localhost"])
def test_this_machine_may_be_reached(host):
    assert loopback.is_loopback(host)


async def test_code_of_ours_that_blocks_the_event_loop_is_an_error(tmp_path):
    with pytest.raises(BlockingError):
        target_problems(tmp_path / "nowhere" / "a.mp4")


def test_a_warning_is_an_error():
    with pytest.raises(UserWarning):
        warnings.warn("odd", stacklevel=1)


DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def defined_twice(source):
    """Yield the functions and classes that the body of a module or class defines again, so that the last one counts."""
    for body in ast.walk(ast.parse(source)):
        if isinstance(body, (ast.Module, ast.ClassDef)):
            definitions = [node for node in body.body if isinstance(node, DEFINITIONS) and not is_one_of_several(node)]
            yield from (name for name, count in Counter(node.name for node in definitions).items() if count > 1)


def is_one_of_several(definition):
    """Return whether it is an overload, or the setter or deleter of a property."""
    names = (ast.unparse(decorator).rpartition(".")[2] for decorator in definition.decorator_list)
    return not {"overload", "setter", "deleter"}.isdisjoint(names)


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "heygen_async"])
def test_no_function_or_class_is_replaced_by_a_later_one_of_the_same_name(folder):
    paths = Path(__file__).parent.parent.joinpath(folder).rglob("*.py")
    found = {str(path): names for path in paths if (names := [*defined_twice(path.read_text(encoding="utf-8"))])}

    assert found == {}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def one(): ...\nasync def one(): ...\ndef two(): ...", ["one"]),
        ("class A:\n  def one(self): ...\n  def one(self): ...", ["one"]),
        ("try:\n  def one(): ...\nexcept ImportError:\n  def one(): ...", []),
        ("@overload\ndef one(): ...\n@overload\ndef one(): ...\ndef one(): ...", []),
        ("class A:\n  @property\n  def b(self): ...\n  @b.setter\n  def b(self, value): ...", []),
    ],
    ids=["module", "class", "branches", "overloads", "property"],
)
def test_a_second_definition_is_noticed_unless_it_is_meant(source, names):
    assert [*defined_twice(source)] == names


async def test_a_session_that_was_opened_before_a_guard_was_set_sends_nothing_to_another_machine(monkeypatch):
    async with HeyGenSession("key") as heygen:
        monkeypatch.setenv("HEYGEN_LOOPBACK_ONLY", "1")
        with pytest.raises(RuntimeError, match="HEYGEN_LOOPBACK_ONLY is set"):
            await heygen.account.me()
