"""Scenes of real handwritten digits, written as an ordinary COCO folder: data without a download.

scikit-learn carries 1,797 digits of 8 x 8 pixels that people wrote by hand. They are enlarged,
turned, coloured and laid over textured backgrounds; a digit's mask is what one sees of its stroke.
Known classes are the digits 0 to 4, novel ones 5 to 9; both have frequent and rare classes. No
digit sample occurs in more than one of the three sets.

    root/images/{labeled,unlabeled,validation}/000001.jpg ...
    root/annotations/{labeled,unlabeled,validation}.json       COCO, masks as compressed RLE
    root/scenes.json                                           the parameters it was made with

Scenes that come later (:func:`write_new_scenes`) are unlabeled ones alone, and may hold one class
that no digit is of: a letter (:mod:`gcdis_ray.data.samples.letters`).
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gcdis_ray.data.samples import letters
from gcdis_ray.errors import DataError
from gcdis_ray.masks import coco_rle
from gcdis_ray.training.plan import Progress, Show

if TYPE_CHECKING:
    from numpy.random import Generator

KNOWN_DIGITS = (0, 1, 2, 3, 4)
SETS = ("labeled", "unlabeled", "validation")

_FORMAT = "gcdis-digit-scenes-1"
_MARKER = "scenes.json"
_HEAD_TO_TAIL = (1, 6, 0, 7, 4, 9, 3, 5, 2, 8)  # known and novel take turns
_HEAD_OVER_TAIL = 4.0
_LETTER_RANK = 4  # among these: neither frequent nor rare
_NUM_DIGITS = 10
_NEW = len(SETS)  # number of a set that came later: its scenes are none of the others'
_SAMPLE_SHARES = {  # of a digit's samples: no sample serves two sets
    "known": {"labeled": 0.40, "unlabeled": 0.35, "validation": 0.25},
    "novel": {"labeled": 0.0, "unlabeled": 0.75, "validation": 0.25},
}
_STROKE_THRESHOLD = 0.55  # of the darkest ink: where a stroke ends
_MAX_HIDDEN = 0.25  # share of a digit that a later one may cover
_OVERLAP_CHANCE = 0.35  # that a digit may cover others at all
_MIN_CONTRAST = 70.0  # grey levels between a digit and what surrounds it
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class SceneSpec:
    """What is written; equal specs give equal bytes."""

    seed: int
    num_labeled: int
    num_unlabeled: int
    num_validation: int
    size_px: int
    digits_per_scene: tuple[int, int]
    stroke_px: tuple[int, int]
    max_rotation_deg: float
    letter: str | None = None

    @property
    def are_new(self) -> bool:
        """Whether they are those that come later."""
        return not self.num_labeled

    def num_scenes(self, name: str) -> int:
        return getattr(self, f"num_{name}")

    def sets(self) -> list[str]:
        """Those that have scenes."""
        return [name for name in SETS if self.num_scenes(name)]

    def categories(self) -> list[dict]:
        """As COCO lists them. A letter has the same id in whichever scenes it is."""
        found = [{"id": digit + 1, "name": f"digit {digit}"} for digit in range(_NUM_DIGITS)]
        if self.letter is not None:
            number = letters.ALPHABET.index(self.letter)
            found.append({"id": _NUM_DIGITS + 1 + number, "name": f"letter {self.letter}"})
        return found


def write_scenes(
    root: Path,
    *,
    seed: int = 0,
    num_labeled: int = 240,
    num_unlabeled: int = 360,
    num_validation: int = 100,
    size_px: int = 128,
    digits_per_scene: tuple[int, int] = (3, 6),
    stroke_px: tuple[int, int] = (22, 44),
    max_rotation_deg: float = 12.0,
    show: Show = lambda progress: None,
) -> bool:
    """Write scenes of digits below ``root``, unless exactly these are there already.

    Args:
        root: folder to make; an existing one must be empty or hold these very scenes.
        size_px: height and width of a scene.
        digits_per_scene: fewest and most digits in a scene.
        stroke_px: shortest and longest height of a digit's stroke before it is turned.
        max_rotation_deg: digits are turned by at most this; at 90 a 6 would be a 9.
        show: how many scenes are written.

    Returns:
        True if scenes were written, False if they were there.

    Raises:
        DataError: ``root`` holds something else, or scenes of other parameters.
    """
    spec = SceneSpec(
        seed, num_labeled, num_unlabeled, num_validation, size_px,
        digits_per_scene, stroke_px, max_rotation_deg,
    )  # fmt: skip
    return _write(root, spec, show)


def write_new_scenes(
    root: Path,
    *,
    num_scenes: int,
    letter: str | None = None,
    seed: int = 0,
    show: Show = lambda progress: None,
) -> bool:
    """Write scenes that come later: unlabeled ones, like those of :func:`write_scenes`.

    Their digits are samples of its validation set with seed 0, that no training has seen.

    Args:
        num_scenes: at least 1.
        letter: a capital one that is in them, too.
        seed: of the scenes. Whatever it is, they are none of :func:`write_scenes`.
        show: how many scenes are written.

    Returns, Raises:
        as :func:`write_scenes`.
    """
    spec = SceneSpec(seed, 0, num_scenes, 0, 128, (3, 6), (22, 44), 12.0, letter)
    return _write(root, spec, show)


def _write(root: Path, spec: SceneSpec, show: Show) -> bool:
    if _is_written(root, spec):
        return False
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as folder:
            partial = Path(folder) / "scenes"
            _write_all(partial, spec, show)
            os.replace(partial, root)  # all of it appears at once
    except OSError as error:
        raise DataError(
            f"cannot write scenes there ({error.strerror})",
            where=str(root),
            fix="choose a folder that you may write",
        ) from error
    return True


def _marker(spec: SceneSpec) -> str:
    told = {name: value for name, value in asdict(spec).items() if value is not None}
    return json.dumps({"format": _FORMAT, **told}, indent=1) + "\n"


def _is_written(root: Path, spec: SceneSpec) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    marker = root / _MARKER
    fix = "choose another folder, or remove this one"
    if not marker.is_file():
        raise DataError("holds something other than digit scenes", where=str(root), fix=fix)
    if marker.read_text() != _marker(spec):
        raise DataError("holds digit scenes of other parameters", where=str(root), fix=fix)
    for name in spec.sets():
        found = len(list((root / "images" / name).glob("*.jpg")))
        if found != spec.num_scenes(name) or not (root / f"annotations/{name}.json").is_file():
            raise DataError("holds digit scenes with files missing", where=str(root), fix=fix)
    return True


def _write_all(root: Path, spec: SceneSpec, show: Show) -> None:
    (root / "annotations").mkdir(parents=True)
    pools = _new_pools(spec) if spec.are_new else _sample_pools(spec.seed)
    categories = spec.categories()
    image_id = annotation_id = 0
    total = sum(map(spec.num_scenes, SETS))
    for name in spec.sets():
        number = _NEW if spec.are_new else SETS.index(name)
        folder = root / "images" / name
        folder.mkdir(parents=True)
        queue = _DigitQueue(pools[name], np.random.default_rng([spec.seed, number]))
        images, annotations = [], []
        for index in range(spec.num_scenes(name)):
            show(Progress(image_id, total, "scenes"))
            image_id += 1  # unique over the three files, as in COCO's own sets
            file_name = f"{index + 1:06d}.jpg"
            scene = _compose(spec, queue, np.random.default_rng([spec.seed, number, index]))
            (folder / file_name).write_bytes(_jpeg(scene.rgb_HW3))
            images.append(
                {
                    "id": image_id,
                    "file_name": file_name,
                    "height": spec.size_px,
                    "width": spec.size_px,
                }
            )
            for digit, mask_HW in scene.digits:
                annotation_id += 1
                category_id = categories[digit]["id"]
                annotations.append(_annotation(annotation_id, image_id, category_id, mask_HW))
        document = {
            "info": {"description": "Scenes of scikit-learn's handwritten digits", "version": "1"},
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        (root / f"annotations/{name}.json").write_text(json.dumps(document))
    (root / _MARKER).write_text(_marker(spec))


def _annotation(annotation_id: int, image_id: int, category_id: int, mask_HW: np.ndarray) -> dict:
    height, width = mask_HW.shape
    rle = coco_rle.encode(mask_HW)
    x0, y0, x1, y1 = coco_rle.bbox_xyxy(rle, height, width)
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": coco_rle.area(rle, height, width),
        "iscrowd": 0,
        "segmentation": {"size": [height, width], "counts": rle},
    }


def _jpeg(rgb_HW3: np.ndarray) -> bytes:
    import cv2

    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    return cv2.imencode(".jpg", rgb_HW3[..., ::-1], quality)[1].tobytes()


# ---------------------------------------------------------------- which digits


def _sample_pools(seed: int) -> dict[str, dict[int, np.ndarray]]:
    """set -> digit -> its samples (n, 8, 8) float64 in [0, 1]; disjoint between the sets."""
    from sklearn.datasets import load_digits

    samples_N88, digits_N = load_digits(return_X_y=True)
    samples_N88, digits_N = np.reshape(samples_N88, (-1, 8, 8)) / 16.0, np.asarray(digits_N)
    pools: dict[str, dict[int, np.ndarray]] = {name: {} for name in SETS}
    for digit in range(10):
        samples = samples_N88[digits_N == digit]
        samples = samples[np.random.default_rng([seed, 10, digit]).permutation(len(samples))]
        start = 0
        for name, share in _SAMPLE_SHARES["known" if digit in KNOWN_DIGITS else "novel"].items():
            stop = start + round(share * len(samples))
            if share:
                pools[name][digit] = samples[start:stop]
            start = stop
    return pools


def _new_pools(spec: SceneSpec) -> dict[str, dict[int, np.ndarray]]:
    """Of scenes that come later: validation samples, and the letter, counted after the digits."""
    pool = dict(_sample_pools(0)["validation"])
    if spec.letter is not None:
        pool[_NUM_DIGITS] = letters.samples(spec.letter)
    return {"unlabeled": pool}


class _DigitQueue:
    """Endless long-tailed sequence of (digit, sample). No sample twice before all were once."""

    def __init__(self, pool: dict[int, np.ndarray], rng: Generator) -> None:
        self._pool, self._rng = pool, rng
        ranks = np.array(
            [_HEAD_TO_TAIL.index(d) if d < _NUM_DIGITS else _LETTER_RANK for d in pool]
        )
        weights = _HEAD_OVER_TAIL ** (-ranks / (len(_HEAD_TO_TAIL) - 1))
        self._digits, self._shares = list(pool), weights / weights.sum()
        self._given = np.zeros(len(pool))
        self._order: dict[int, list[int]] = {digit: [] for digit in pool}

    def take(self, count: int) -> list[tuple[int, np.ndarray]]:
        """The next ``count`` digits: drawn at random, held close to the classes' shares."""
        taken = []
        for _ in range(count):
            owed = self._shares * (self._given.sum() + 10) - self._given
            chance = np.clip(owed, 0, None)
            which = self._rng.choice(len(self._digits), p=chance / chance.sum())
            self._given[which] += 1
            digit = self._digits[which]
            if not self._order[digit]:
                self._order[digit] = self._rng.permutation(len(self._pool[digit])).tolist()
            taken.append((digit, self._pool[digit][self._order[digit].pop()]))
        return taken


# ---------------------------------------------------------------- one scene


@dataclass(frozen=True)
class _Scene:
    rgb_HW3: np.ndarray  # uint8
    digits: list[tuple[int, np.ndarray]]  # digit, visible pixels (H, W) bool


def _compose(spec: SceneSpec, queue: _DigitQueue, rng: Generator) -> _Scene:
    low, high = spec.digits_per_scene
    placed: list[tuple[int, np.ndarray]] = []  # digit, opacity (H, W) float in [0, 1]
    for digit, sample in queue.take(int(rng.integers(low, high + 1))):
        ink_HW = _place(spec, sample, [ink for _, ink in placed], rng)
        if ink_HW is not None:
            placed.append((digit, ink_HW))
    canvas_HW3 = _background(spec.size_px, rng)
    for _, ink_HW in placed:  # a later digit lies on top
        colour = _colour_against(canvas_HW3, ink_HW, rng)
        canvas_HW3 += ink_HW[..., None] * (colour - canvas_HW3)
    canvas_HW3 += 3.0 * rng.standard_normal(canvas_HW3.shape, dtype=np.float32)
    visible = _visible([ink for _, ink in placed])
    rgb_HW3 = np.clip(np.rint(canvas_HW3), 0, 255).astype(np.uint8)
    return _Scene(
        rgb_HW3, [(digit, mask) for (digit, _), mask in zip(placed, visible, strict=True)]
    )


def _visible(inks: list[np.ndarray]) -> list[np.ndarray]:
    """What one sees of each stroke when later ones lie on top, (H, W) bool each."""
    masks_HW = [ink > 0.5 for ink in inks]
    covered = np.zeros_like(masks_HW[0]) if masks_HW else np.zeros(0, bool)
    seen = []
    for mask in reversed(masks_HW):
        seen.append(mask & ~covered)
        covered |= mask
    return seen[::-1]


def _place(
    spec: SceneSpec, sample: np.ndarray, others: list[np.ndarray], rng: Generator
) -> np.ndarray | None:
    """The digit somewhere in the scene: opacity (H, W) float in [0, 1]; None if there is no room.

    Most digits keep clear of the others; some may lie on them, hiding a little.
    """
    hidden = _MAX_HIDDEN if rng.random() < _OVERLAP_CHANCE else 0.0
    strokes = [int((ink > 0.5).sum()) for ink in others]
    for _ in range(8):
        patch = _draw(spec, sample, rng)
        room = spec.size_px - np.array(patch.shape)
        if (room < 0).any():
            continue
        for _ in range(12):
            y0, x0 = rng.integers(0, room + 1)
            ink_HW = np.zeros((spec.size_px, spec.size_px))
            ink_HW[y0 : y0 + patch.shape[0], x0 : x0 + patch.shape[1]] = patch
            seen = _visible([*others, ink_HW])[:-1]
            if all(s.sum() >= (1 - hidden) * whole for s, whole in zip(seen, strokes, strict=True)):
                return ink_HW
    return None


def _draw(spec: SceneSpec, sample: np.ndarray, rng: Generator) -> np.ndarray:
    """The sample's stroke, enlarged by cubic splines and turned: opacity (h, w) in [0, 1].

    The patch is the tight box of the stroke.
    """
    from scipy.ndimage import affine_transform

    low, high = np.log(spec.stroke_px)
    scale = float(np.exp(rng.uniform(low, high))) / 8.0
    stretch = np.exp(rng.uniform(-0.1, 0.1))
    angle = np.deg2rad(rng.uniform(-spec.max_rotation_deg, spec.max_rotation_deg))
    side = int(np.ceil(scale * 13))  # holds 8 x 8 cells at any angle, stretched
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([1 / (scale * stretch), stretch / scale])  # patch -> sample
    padded = np.pad(sample, 3)
    offset = np.array([6.5, 6.5]) - matrix @ np.array([side - 1, side - 1]) / 2
    patch = affine_transform(padded, matrix, tuple(offset), (side, side), order=3)  # pyright: ignore
    # opacity falls from 1 to 0 over about two pixels around the threshold
    patch = np.clip((patch - _STROKE_THRESHOLD) * scale * 0.6 + 0.5, 0.0, 1.0)
    rows, columns = np.flatnonzero(patch.any(1)), np.flatnonzero(patch.any(0))
    return patch[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


# ---------------------------------------------------------------- colours


def _luminance(rgb: np.ndarray) -> np.ndarray:
    return rgb @ np.array([0.299, 0.587, 0.114])


def _background(size_px: int, rng: Generator) -> np.ndarray:
    """Gradient, two scales of coloured clouds and stripes: (H, W, 3) float in about [20, 235]."""
    import cv2

    y_HW, x_HW = np.mgrid[0:size_px, 0:size_px] / size_px
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    along = np.cos(angle) * x_HW + np.sin(angle) * y_HW
    blend = (along - along.min()) / (along.max() - along.min() + 1e-9)
    first, second = rng.uniform(40, 215, (2, 3))
    canvas = first + blend[..., None] * (second - first)
    for cells, amount in ((8, rng.uniform(8, 26)), (40, rng.uniform(3, 10))):
        cloud = cv2.resize(
            rng.normal(size=(cells, cells, 3)), (size_px, size_px), interpolation=cv2.INTER_CUBIC
        )
        canvas += amount * cloud / (cloud.std() + 1e-9)
    angle, frequency = rng.uniform(0, np.pi), rng.uniform(4, 16)
    wave = np.sin(2 * np.pi * frequency * (np.cos(angle) * x_HW + np.sin(angle) * y_HW) + phase)
    canvas += wave[..., None] * rng.uniform(-14, 14, 3)
    return np.clip(canvas, 20, 235)


def _colour_against(canvas_HW3: np.ndarray, ink_HW: np.ndarray, rng: Generator) -> np.ndarray:
    """A random colour whose luminance stands out from what lies under and around the stroke."""
    import cv2

    around = cv2.dilate((ink_HW > 0).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    under = canvas_HW3[around]
    low, high = np.quantile(_luminance(under), (0.1, 0.9))
    while True:
        colour = rng.uniform(0, 255, 3)
        light = float(_luminance(colour))
        if light > high + _MIN_CONTRAST or light < low - _MIN_CONTRAST:
            return colour
        # where the background spans nearly everything, ask for less until a colour exists
        low, high = low + 0.5, high - 0.5
