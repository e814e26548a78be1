"""`heygen-async completion`: completion scripts for shells."""

from __future__ import annotations

from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the completion script of a shell.

    For bash: heygen-async completion bash > ~/.local/share/bash-completion/completions/heygen-async

    For zsh: heygen-async completion zsh > a file _heygen-async in a folder of $fpath

    For fish: heygen-async completion fish > ~/.config/fish/completions/heygen-async.fish

    Example: heygen-async completion bash

    Args:
        shell: The shell.
    """
    from heygen_async.cli.app import make_app  # noqa: PLC0415 it knows this command by its path

    print(make_app().generate_completion(shell=shell))  # noqa: T201 it is the result
