"""``gcdis``: a module per command, which is a ``Command``.

Exit status: 0 done, 2 a mistake the message explains, 130 interrupted, 1 anything else.

Modules of commands import what is heavy inside ``run``, so that help and mistakes come at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol, cast

from gcdis_ray import __version__
from gcdis_ray.errors import GcdisError

# In the order of ``gcdis --help``. The module of ``data check`` is ``data_check``.
COMMANDS = (
    "init",
    "plan",
    "run",
    "submit",
    "sweep",
    "status",
    "report",
    "name",
    "export",
    "evaluate",
    "predict",
    "bundle",
    "data check",
    "doctor",
    "gc",
    "track",
    "digits",
    "completion",
)
# First words of commands that have two.
GROUPS = {"data": "look at the data of a config"}

EXAMPLE = "gcdis init /data/mine\ngcdis plan mine.yaml\ngcdis run mine.yaml"


class Command(Protocol):
    """What the module of a command has."""

    HELP: str  # a line
    EXAMPLE: str  # command lines that can be typed as they are, one a line

    def arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int:
        """The exit status."""
        ...


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line, and give its exit status.

    Args:
        argv: words after ``gcdis``; those of this process if None.

    Raises:
        SystemExit: argparse has printed help, or what is wrong with the words.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = make_parser(argv[0] if argv else None).parse_args(argv)
    try:
        return args.command(args)
    except GcdisError as error:
        print(f"gcdis: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ngcdis: interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1


def load_command(name: str) -> Command:
    """The module of one of ``COMMANDS``."""
    module = name.replace(" ", "_").replace("-", "_")
    return cast("Command", import_module(f"{__name__}.{module}"))


def make_parser(first: str | None = None) -> argparse.ArgumentParser:
    """The parser of every command, or only of those that begin with the word ``first`` if any do:
    modules of others are not imported."""
    parser = argparse.ArgumentParser(
        prog="gcdis",
        **_texts(
            "Find, mask and sort objects into known classes and the ones nobody has named.", EXAMPLE
        ),
    )
    parser.add_argument("--version", action="version", version=f"gcdis {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    groups: dict[str, Any] = {}
    typed = [name for name in COMMANDS if name.split()[0] == first]
    for name in typed or COMMANDS:
        group, _, action = name.rpartition(" ")
        if group and group not in groups:
            below = commands.add_parser(group, help=GROUPS[group], description=GROUPS[group])
            groups[group] = below.add_subparsers(required=True, metavar="ACTION")
        command = load_command(name)
        sub = groups.get(group, commands).add_parser(
            action, help=command.HELP, **_texts(command.HELP, command.EXAMPLE)
        )
        command.arguments(sub)
        sub.set_defaults(command=command.run)
    return parser


def _texts(description: str, example: str) -> dict[str, Any]:
    """What argparse prints before and after the arguments, lines left as they are."""
    lines = example.splitlines()
    shown = "\n".join(["examples:" if len(lines) > 1 else "example:", *(f"  {x}" for x in lines)])
    return dict(
        description=description,
        epilog=shown,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
