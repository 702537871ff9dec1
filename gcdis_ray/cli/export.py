"""``gcdis export``."""

from __future__ import annotations

import argparse
from typing import Any

from gcdis_ray.cli.telling import json_argument, print_json
from gcdis_ray.exporting.choices import CROPS, FOLDERS, FORMATS, IMAGES, MIN_IOU, OF

HELP = "write what a run has found as files of labeling and training tools"
EXAMPLE = """\
gcdis export runs/mine --format coco --out for_coco
gcdis export runs/mine --format label-studio --min-reliability 0.5 --out for_label_studio
gcdis export runs/mine --format yolo --of predictions --min-score 0.5 --out for_yolo
gcdis export runs/mine --format folders --out crops"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's storage or config, or gcdis predict's")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a config's value"
    )
    parser.add_argument("--format", required=True, choices=FORMATS, help="of which tool")
    parser.add_argument(
        "--of",
        choices=OF,
        help="pseudo-labels: objects of unlabeled images (default); predictions: of the segmenter; "
        "crops: by cluster, with --format folders",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="to make")
    parser.add_argument("--force", action="store_true", help="replace an earlier export")
    parser.add_argument(
        "--min-reliability",
        type=_share,
        default=0.0,
        metavar="X",
        help="rank of a pseudo-label in its class, in (0, 1]: 0.8 leaves the best fifth",
    )
    parser.add_argument(
        "--min-score", type=_share, default=0.0, metavar="X", help="probability of the class"
    )
    parser.add_argument("--with-labels", action="store_true", help="given labels as well")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument(
        "--polygons",
        dest="rle",
        action="store_false",
        default=None,
        help="masks as polygons: the default, but for fiftyone",
    )
    shape.add_argument("--rle", action="store_true", default=None, help="masks as run lengths")
    parser.add_argument(
        "--min-iou",
        type=_overlap,
        default=MIN_IOU,
        metavar="X",
        help=f"polygons have as few points as keep so much of their mask (default {MIN_IOU}); "
        "1: every edge of its pixels",
    )
    parser.add_argument(
        "--images", choices=IMAGES, default="copy", help="image files beside the labels (copy)"
    )
    parser.add_argument(
        "--image-prefix",
        metavar="TEXT",
        help="label-studio: what precedes names of images; default: as it serves a local folder",
    )
    json_argument(parser)


def _share(text: str) -> float:
    return _between(0, text)


def _overlap(text: str) -> float:
    return _between(0.5, text)  # of less than half of a mask nothing might be left


def _between(low: float, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not low <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no number in [{low:g}, 1]")
    return value


def run(args: argparse.Namespace) -> int:
    from gcdis_ray.exporting.export import Wanted, export
    from gcdis_ray.exporting.run_objects import Limits
    from gcdis_ray.run.opened import open_run
    from gcdis_ray.run.progress import Line

    wanted = Wanted(
        format=args.format,
        of=args.of or (CROPS if args.format == FOLDERS else OF[0]),
        out=args.out,
        limits=Limits(args.min_score, args.min_reliability, args.with_labels),
        rle=args.rle,
        min_iou=args.min_iou,
        images=args.images,
        image_prefix=args.image_prefix,
        force=args.force,
    )
    line = Line()

    def show(done: int, total: int, unit: str) -> None:
        line.tell(f"  export  {done}/{total} {unit}  {100 * done // total} %")

    try:
        told = export(open_run(args.run, args.set), wanted, show)
    finally:
        line.close()
    if args.json:
        print_json({"out": args.out, **told})
    else:
        _print(args.out, told)
    return 0


def _print(out: str, told: dict[str, Any]) -> None:
    from gcdis_ray.words import counted

    classes = counted(len(told["classes"]), "class", "classes")
    if told["of"] == CROPS:
        print(f"{counted(told['crops'], 'crop')} of {classes} in {out}")
        for name, folder in told["renamed"].items():
            print(f"  {name} is in folder {folder}")
        return
    images, objects = counted(told["images"], "image"), counted(told["objects"], "object")
    print(f"{objects} of {classes} in {images}, as {told['format']}, in {out}")
    for why, number in told["left_out"].items():
        print(f"  left out: {number:,} {why}")
    if told["drawn_as_boxes"]:
        print(f"  {counted(told['drawn_as_boxes'], 'object')} without a mask: drawn as the box")
    if kept := told["polygons"]:
        points, mean, least = kept["points"] / kept["masks"], kept["mean_iou"], kept["least_iou"]
        print(
            f"  polygons of {points:.0f} points keep {mean:.3f} of a mask (IoU), at least "
            f"{least:.3f}; --min-iou 1 keeps all"
        )
