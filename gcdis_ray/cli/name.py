"""``gcdis name``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gcdis_ray.cli.telling import json_argument, print_json
from gcdis_ray.errors import ConfigError, CurationError

if TYPE_CHECKING:
    from gcdis_ray.naming.desk import Desk
    from gcdis_ray.naming.text_encoder import Namer

HELP = "name, merge, split and reject discovered classes; --serve: on a local page"
EXAMPLE = """\
gcdis name runs/quickstart
gcdis name runs/quickstart --serve
gcdis name runs/quickstart --name 12=zebra --merge 3,5 --reject 7"""


class _Say(argparse.Action):
    """Keeps acts in the order in which they were said."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        said = [*(getattr(namespace, "said", None) or []), ((option or "")[2:], values or "")]
        namespace.said = said


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="RUN", help="a config file, or the storage of a run")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of a config"
    )
    acts = parser.add_argument_group("acts, carried out together or not at all")
    for option, form, text in (
        ("name", "CLASS=NAME", "CLASS is a number or name as --list shows it, here and below"),
        ("merge", "CLASS,CLASS", "they become one class"),
        ("split", "CLASS", "in two, as suggested"),
        ("split-crops", "CROP,CROP", "these crops leave their class and become a new one"),
        ("reject", "CLASS", "it is no class: its crops are noise"),
    ):
        acts.add_argument(f"--{option}", action=_Say, metavar=form, help=text)
    acts.add_argument("--undo", action=_Say, nargs=0, help="take back the last act")
    acts.add_argument("--apply", metavar="FILE", help="acts of a log that was made elsewhere")
    parser.add_argument("--list", action="store_true", help="the clusters, a line each")
    json_argument(parser)
    parser.add_argument("--output", metavar="FILE", help="of the contact sheet")
    parser.add_argument("--serve", action="store_true", help="a page on 127.0.0.1, until Ctrl-C")
    parser.add_argument(
        "--port", type=int, default=0, metavar="N", help="of the page; default: any"
    )
    parser.add_argument(
        "--text-encoder",
        metavar="FOLDER",
        help="CLIP weights that suggest names (needs the package transformers)",
    )
    parser.add_argument(
        "--vocabulary", metavar="FILE", help="names that it may suggest, one a line"
    )
    parser.set_defaults(said=None)


def run(args: argparse.Namespace) -> int:
    from gcdis_ray.naming.desk import Desk
    from gcdis_ray.run.opened import open_run

    acting = bool(args.said or args.apply)
    _check(args, acting)
    desk = Desk(open_run(args.config, args.set))
    if args.serve:
        return _serve(desk, args)
    said = _act(desk, args) if acting else None
    if args.json or args.list:
        _tell(desk, said, args.json)
    elif said:
        print(said)
    else:
        _write_sheet(desk, args)
    return 0


def _check(args: argparse.Namespace, acting: bool) -> None:
    """What does not go together."""
    if args.serve and (acting or args.list or args.json or args.output):
        raise ConfigError("acts, lists and files are not for the page", where="--serve")
    if args.output and (acting or args.list or args.json):
        raise ConfigError("is of the contact sheet alone", where="--output")
    if args.port and not args.serve:
        raise ConfigError("is of the page", where="--port", fix="add --serve")
    if args.text_encoder and (acting or args.list or args.json):
        raise ConfigError("suggests names on a page or a contact sheet", where="--text-encoder")
    if bool(args.text_encoder) != bool(args.vocabulary):
        raise ConfigError(
            "names are suggested by --text-encoder FOLDER, from those of --vocabulary FILE",
            where="--text-encoder" if args.text_encoder else "--vocabulary",
            fix="give both",
        )


def _act(desk: Desk, args: argparse.Namespace) -> str:
    """Carries out what was said, and tells what follows."""
    from datetime import UTC, datetime
    from pathlib import Path

    from gcdis_ray.curating.acts import Note, parse_log
    from gcdis_ray.naming.again import what_follows
    from gcdis_ray.naming.spoken import acts_of

    before = desk.look()
    acts = []
    if args.apply:
        try:
            text = Path(args.apply).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            what = getattr(error, "strerror", None) or str(error)
            raise CurationError(what, where=f"--apply {args.apply}") from error
        acts = parse_log(text, args.apply)
    note = Note(at=datetime.now(UTC).isoformat(timespec="seconds"))
    acts += acts_of(args.said or [], desk, before, note)
    after = desk.take(acts, seen=len(before.acts))
    return what_follows(desk.run, before.acts, after.acts)


def _tell(desk: Desk, said: str | None, as_json: bool) -> None:
    from gcdis_ray.naming.listing import row_of

    standing = desk.look()
    rows = [row_of(cluster) for cluster in standing.clusters]
    if as_json:
        print_json(
            {
                "run": desk.run.name,
                "acts": len(standing.acts),
                "rejected": standing.num_rejected,
                "said": said,
                "clusters": rows,
            }
        )
        return
    if said:
        print(said)
    for row in rows:
        kind = "known" if row["known"] else "named" if row["named"] else ""
        sure = "" if row["probability"] is None else f"{row['probability']:.2f}"
        print(f"{row['number']:>6}  {row['size']:>9,} crops  {sure:>4}  {kind:<5}  {row['name']}")
    if standing.num_rejected:
        print(f"rejected: {standing.num_rejected:,} crops")


def _write_sheet(desk: Desk, args: argparse.Namespace) -> None:
    from gcdis_ray.naming.contact_sheet import write_sheet

    print(f"contact sheet: {write_sheet(desk, args.output, _namer(desk, args))}")
    print(f"name on a local page: gcdis name {args.config} --serve")
    print(f"or here, by number:   gcdis name {args.config} --name 12=zebra --merge 3,5 --reject 7")


def _serve(desk: Desk, args: argparse.Namespace) -> int:
    from gcdis_ray.naming.server import NamingServer

    desk.look()  # a log that cannot be followed is said here
    with NamingServer(desk, args.port, _namer(desk, args)) as server:
        print(f"naming {desk.run.name}: {server.address}", flush=True)
        print("This address lets whoever has it name; Ctrl-C ends it.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nended; every act is kept")
    return 0


def _namer(desk: Desk, args: argparse.Namespace) -> Namer | None:
    if not args.text_encoder:
        return None
    from gcdis_ray.naming.text_encoder import Namer

    return Namer(args.text_encoder, args.vocabulary, desk.crops.pictures)
