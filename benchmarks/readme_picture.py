"""The picture in the README, drawn from a finished run: scenes on the left, what was discovered
on the right.

    python benchmarks/readme_picture.py configs/quickstart.yaml docs/result.png
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from gcdis_ray.errors import ArtifactError, GcdisError
from gcdis_ray.report.assigned import read_crops_assigned
from gcdis_ray.report.cards import Card
from gcdis_ray.report.palette import class_color, rgb
from gcdis_ray.report.run_pictures import draw_predictions
from gcdis_ray.report.sorted_run import SortedRun
from gcdis_ray.report.view import RunView

WIDTH_PX, MARGIN_PX, GAP_PX = 1600, 36, 12
SCENE_WIDTH_PX = 440
ROW_PX = 92
PAPER, INK, SOFT = (250, 249, 246), (28, 31, 36), (95, 102, 112)


def draw_picture(view: RunView, num_scenes: int = 2, num_classes: int = 8) -> Image.Image:
    """The page's own pictures, arranged: scenes with predictions, then a row per found class.

    Args:
        view: a run that is finished at least until it predicts.

    Raises:
        ArtifactError: nothing has been discovered and predicted yet.
    """
    metrics = view.json("metrics") or {}
    crops = read_crops_assigned(view)
    section = draw_predictions(view, metrics)
    if crops is None or section is None:
        raise ArtifactError(
            "nothing discovered and predicted yet", where=view.storage, fix="gcdis run CONFIG"
        )
    cards = SortedRun(view, crops, metrics).cards
    found = [c for c in cards if not c.view.known and c.best][:num_classes]
    scenes = [_open(s.found_uri, SCENE_WIDTH_PX) for s in section.pictures[:num_scenes]]
    left_px = sum(s.height + GAP_PX for s in scenes) - GAP_PX
    right_px = len(found) * (ROW_PX + GAP_PX) - GAP_PX
    height_px = max(left_px, right_px) + 2 * MARGIN_PX + 44
    canvas = Image.new("RGB", (WIDTH_PX, height_px), PAPER)
    pen = ImageDraw.Draw(canvas)
    second_px = MARGIN_PX + SCENE_WIDTH_PX + 3 * GAP_PX
    title = ImageFont.load_default(size=24)
    pen.text((MARGIN_PX, MARGIN_PX - 6), "In the images", font=title, fill=INK)
    text = "Classes that nobody had named, surest crops first"
    pen.text((second_px, MARGIN_PX - 6), text, font=title, fill=INK)
    top_px = MARGIN_PX + 44
    for place, scene in enumerate(scenes):
        top = top_px + sum(s.height + GAP_PX for s in scenes[:place])
        canvas.paste(scene, (MARGIN_PX, top), _rounded(scene.size))
    for place, card in enumerate(found):
        _draw_row(canvas, card, second_px, top_px + place * (ROW_PX + GAP_PX))
    return canvas


def _draw_row(canvas: Image.Image, card: Card, left: int, top: int) -> None:
    pen = ImageDraw.Draw(canvas)
    color = rgb(class_color(card.view.class_index, card.view.known))
    pen.rounded_rectangle((left, top, left + 8, top + ROW_PX), radius=4, fill=color)
    pen.text(
        (left + 22, top + 10), card.view.name[:14], font=ImageFont.load_default(size=22), fill=INK
    )
    note = [f"{card.size} crops"]
    if card.truth.majority is not None and card.truth.purity is not None:
        note.append(f"{card.truth.purity:.0%} are '{card.truth.majority[:12]}'")
    small = ImageFont.load_default(size=16)
    pen.multiline_text((left + 22, top + 40), "\n".join(note), font=small, fill=SOFT, spacing=5)
    x = left + 190
    for thumb in card.best:
        picture = _open(thumb.data_uri)
        picture = picture.resize((round(picture.width * ROW_PX / picture.height), ROW_PX))
        if x + picture.width > WIDTH_PX - MARGIN_PX:
            break
        canvas.paste(picture, (x, top), _rounded(picture.size))
        x += picture.width + 6


def _open(data_uri: str, width_px: int | None = None) -> Image.Image:
    picture = Image.open(io.BytesIO(base64.b64decode(data_uri.partition(",")[2]))).convert("RGB")
    if width_px is None:
        return picture
    return picture.resize((width_px, round(picture.height * width_px / picture.width)))


def _rounded(size: tuple[int, int], radius: int = 8) -> Image.Image:
    stencil = Image.new("L", size, 0)
    ImageDraw.Draw(stencil).rounded_rectangle(
        (0, 0, size[0] - 1, size[1] - 1), radius=radius, fill=255
    )
    return stencil


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    from gcdis_ray.run.pipeline import Pipeline, load_config
    from gcdis_ray.run.report import view_of

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="of a finished run")
    parser.add_argument("output", type=Path, help="PNG file to write")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    try:
        pipeline = Pipeline(load_config(options.config, options.set))
        draw_picture(view_of(pipeline)).quantize(256).save(options.output, optimize=True)
    except GcdisError as error:
        print(error, file=sys.stderr)
        return 2
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
