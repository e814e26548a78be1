"""Commands that are suggested: pasted into a shell, they do what they say."""

import shlex
from pathlib import Path

import pytest

pytest.importorskip("cyclopts", reason="the command line is an extra")

from test_dub_view import SNAPSHOT

from heygen_async.cli.advice import advising_on_doubt
from heygen_async.cli.app import make_app
from heygen_async.cli.dub_commands import RunCommands
from heygen_async.cli.dub_flags import RunFlags
from heygen_async.cli.options import Options
from heygen_async.cli.output_flags import OutputFlags
from heygen_async.cli.review_flags import ReviewFlags
from heygen_async.errors import TransportError


def parsed(command):
    """Return what a command that was pasted into a shell is called with."""
    program, *words = shlex.split(command)
    assert program == "heygen-async"
    return make_app().parse_args(words, exit_on_error=False, print_error=False)[1].arguments


@pytest.mark.parametrize("name", ["-x.csv", "--json.csv", "-.csv", "two words.csv", "$HOME.csv"])
def test_a_suggested_command_names_the_same_files_when_it_is_pasted(name):
    manifest = Path(name)
    journal = manifest.with_suffix(".sqlite")
    flags = RunFlags(output_dir=Path("-out"), journal=journal)
    commands = RunCommands(manifest, flags, ReviewFlags(), None)
    again = commands.after_rehearsal()["Start the run"]
    *_, review = commands.after(SNAPSHOT, is_over_budget=False, drafts=journal).values()

    assert parsed(again)["manifest"] == manifest
    assert parsed(again)["flags"] == flags
    assert parsed(review)["journal"] == journal


@pytest.mark.parametrize("opened", ["/dev/fd/63", "/proc/self/fd/11"])
def test_rows_of_a_file_that_the_shell_has_opened_are_to_be_on_standard_input(opened):
    commands = RunCommands(Path(opened), RunFlags(journal=Path("j.sqlite")), ReviewFlags(), None)
    again = commands.after(SNAPSHOT, is_over_budget=False, drafts=Path("j.sqlite"))

    assert again == {
        "Continue, with the same rows on standard input": "heygen-async dub /dev/stdin --journal j.sqlite",
        "Watch the drafts, and approve or reject them": "heygen-async review j.sqlite",
    }


def test_the_command_for_standard_input_stays_as_it_is():
    commands = RunCommands(Path("/dev/stdin"), RunFlags(journal=Path("j.sqlite")), ReviewFlags(), None)

    assert commands.after_rehearsal()["Start the run"] == "heygen-async dub /dev/stdin --journal j.sqlite"


@pytest.mark.parametrize("output", ["-x.mp4", "--overwrite", "two words.mp4"])
def test_a_suggested_download_writes_to_the_same_file_when_it_is_pasted(output):
    delivery = OutputFlags(output, overwrite=False, captions=False)

    assert parsed(delivery.command("ls_1", Options()))["output"] == output


def test_a_suggested_key_that_starts_like_a_flag_is_its_value_when_it_is_pasted():
    error = TransportError("no answer")
    error.idempotency_key, error.outcome = "-mine", "unknown"
    with pytest.raises(TransportError), advising_on_doubt("it may have been created"):
        raise error

    flag = error.__notes__[0].rpartition("with ")[2]
    assert parsed(f"heygen-async lipsync create {flag}")["idempotency_key"] == "-mine"
