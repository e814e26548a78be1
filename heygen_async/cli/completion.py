"""`heygen-async completion`: completion scripts for shells."""

from __future__ import annotations

from typing import Final, Literal

_CORRECTIONS: Final = {
    # Names with blanks would be split; without words of its own a command gets those of readline, which quotes them.
    "bash": (('COMPREPLY=( $(compgen -f -- "${cur}") )', "COMPREPLY=()"), ("complete -F ", "complete -o default -F ")),
    # The file defines another function than the one that zsh loads from it, which is named after the file.
    "zsh": (("_cyclopts_heygen-async", "_heygen-async"),),
    "fish": (),
}
"""What is replaced in the scripts of cyclopts, by shell."""


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

    script = make_app().generate_completion(shell=shell)
    for wrong, right in _CORRECTIONS[shell]:
        script = script.replace(wrong, right)
    print(script)  # noqa: T201 it is the result
