"""What tells whether a data set has changed: by its contents, or by the states of its files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from gcdis_ray.data.sets.data_config import DataConfig, ImageSet
from gcdis_ray.data.sets.splits import DataPlan, SetPlan
from gcdis_ray.errors import DataError
from gcdis_ray.store.artifacts import canonical_json
from gcdis_ray.store.meter import count, metering
from gcdis_ray.store.source import SourceFolder
from gcdis_ray.training.plan import Progress, Show
from gcdis_ray.words import printed


def states_digest(config: DataConfig, images_of: Sequence[str]) -> str:
    """Fingerprint of the states of all files that the config names, without opening one, and of all
    files in the image folders of these sets, and of those that are named by classes; and of where
    links to folders lead, by which files may be named.

    Any change of a file changes it, also one that would change nothing in the artifact.
    """
    folder = config.open_root()
    found: dict[str, Any] = {}
    for name in config.files():
        found[name] = _state(folder, name)
        beside = PurePosixPath(name)
        if beside.suffix == ".txt":  # VOC: a list of names; masks lie in folders beside
            root = str(beside.parents[2]) if len(beside.parents) > 2 else "."
            found[f"{root}/"] = _listing_digest(folder, root)
        else:  # Visual Genome: sizes of images
            found[f"{name}+"] = _state(folder, str(beside.with_name("image_data.json")))
    sets = (config.image_set(split) for split in config.splits)
    listed = {chosen.images for chosen in sets if chosen.has_class_folders}
    listed |= {config.image_set(split).images for split in images_of}
    by_name = {chosen.images for chosen in map(config.image_set, images_of) if _names_files(chosen)}
    for images in sorted(listed):
        found[f"{images}/"] = _listing_digest(folder, images, listed=images in by_name)
    return hashlib.sha256(canonical_json(found).encode()).hexdigest()


def annotations_digest(
    plan: DataPlan, split: str, category_ids: Collection[int] | None, show: Show
) -> str:
    """What tells whether those annotations have changed that are looked at."""
    with bytes_read(plan, split, show) as told:
        return plan.sets[split].selection(category_ids).digest(told)


def images_digest(plan: DataPlan, split: str, show: Show) -> str:
    chosen = plan.sets[split]
    files, absent = _contents_digest(plan.folder, chosen, show)
    if absent == len(chosen.images):
        missing = chosen.missing(plan.folder)
        if not (missing.similar or missing.refused):
            raise DataError(
                f"none of its {absent} images exists, such as {printed(chosen.images[0].uri)}",
                where=f"stages.ingest.{split}.images",
                fix=f"check root ({plan.folder.uri}) and images",
            )
    if absent:
        plan.check_present()
    found = hashlib.sha256(f"{split} {files}".encode())
    for image in chosen.images:
        line = [image.image_id, image.uri, image.height_px, image.width_px]
        found.update(canonical_json(line).encode())
    return found.hexdigest()


def _contents_digest(folder: SourceFolder, chosen: SetPlan, show: Show) -> tuple[str, int]:
    """Of the bytes of the images, and how many cannot be read: those are quarantined later."""
    found, absent = hashlib.sha256(), 0
    for number, image in enumerate(chosen.images):
        show(Progress(number, len(chosen.images), "images looked at"))
        digest = b""
        try:
            with folder.open(image.uri) as file:
                digest = hashlib.file_digest(file, "sha256").digest()  # pyright: ignore[reportArgumentType]
        except OSError:
            absent += 1
        found.update(digest.ljust(32, b"-"))
    return found.hexdigest(), absent


def _names_files(chosen: ImageSet) -> bool:
    """Whether it is told which files of its folder are images of the set."""
    return bool(chosen.annotation_files) and not chosen.has_class_folders


def _listing_digest(folder: SourceFolder, images: str, *, listed: bool = False) -> list[Any]:
    """Number of files below a folder, and the sum of the hashes of their names and states: a
    listing comes in whatever order."""
    total, count = 0, 0
    for name, state in folder.states(images, listed=listed):
        line = f"{name} {state.num_bytes}:{state.changed}"
        total += int.from_bytes(
            hashlib.sha256(line.encode("utf-8", "surrogateescape")).digest(), "big"
        )
        count += 1
    return [count, f"{total % 2**256:064x}"]


def _state(folder: SourceFolder, name: str) -> str | None:
    try:
        state = folder.state(name)
    except OSError as error:
        raise DataError(
            f"cannot be looked at ({error.strerror})",
            where=f"{folder.uri}/{name}",
            fix="let it be read",
        ) from error
    return f"{state.num_bytes}:{state.changed}" if state else None


@contextmanager
def bytes_read(plan: DataPlan, split: str, show: Show) -> Iterator[Callable[[], None]]:
    """Gives a function to call while annotations are read: it shows how much of their files was."""
    names = plan.sets[split].config.annotation_files
    states = [plan.folder.state(name) for name in names]
    total = sum(state.num_bytes for state in states if state) // 10**6
    with metering() as meter:
        try:
            yield lambda: show(
                Progress(min(meter.read_bytes // 10**6, total), total, f"MB of {split} annotations")
            )
        finally:
            amounts = meter.amounts()
    count(**amounts)
