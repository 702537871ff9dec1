"""``gcdis completion``."""

from __future__ import annotations

import argparse

HELP = "print what makes a shell complete commands, options and files"
EXAMPLE = "gcdis completion bash"

SHELLS = {
    "bash": 'eval "$(gcdis completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(gcdis completion zsh)" in ~/.zshrc, after compinit',
    "fish": "gcdis completion fish > ~/.config/fish/completions/gcdis.fish",
}
# Names of arguments in help that stand for what lies on a disk.
_FILES = {"CONFIG", "FILE", "FILE[:KEY]", "RUN"}
_FOLDERS = {"FOLDER"}


def arguments(parser: argparse.ArgumentParser) -> None:
    how = "\n".join(f"  {shell:<5} {line}" for shell, line in SHELLS.items())
    parser.description = f"{HELP}; to have it in each new one:\n{how}"
    parser.add_argument("shell", choices=tuple(SHELLS), metavar="SHELL", help=", ".join(SHELLS))


def run(args: argparse.Namespace) -> int:
    import shtab

    from gcdis_ray.cli import make_parser

    parser = make_parser()
    _mark(parser)
    print(shtab.complete(parser, args.shell))
    return 0


def _mark(parser: argparse.ArgumentParser) -> None:
    """Tell shtab, in the way it wants, which arguments are files and folders."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _mark(below)
            continue
        shown = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        if shown in _FILES:
            action.complete = shtab.FILE  # pyright: ignore[reportAttributeAccessIssue]
        elif shown in _FOLDERS:
            action.complete = shtab.DIRECTORY  # pyright: ignore[reportAttributeAccessIssue]
