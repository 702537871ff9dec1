"""What a run would do, before it does it: writes nothing, starts nothing."""

from __future__ import annotations

from typing import Any

from gcdis_ray.artifacts import Manifest
from gcdis_ray.pipeline import Pipeline, rows_and_bytes
from gcdis_ray.progress import size
from gcdis_ray.storage import read_manifest


def describe(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Per stage: name, takes, key, action (cached | run), why, rows, bytes, estimated.

    Sizes of a stage that has to run are those of its newest earlier artifact, scaled by the number
    of images; null where there is none to go by.
    """
    images = _num_images(pipeline)
    entries = []
    for name, node in pipeline.nodes.items():
        manifest = pipeline.manifest(name)
        if manifest:
            rows, num_bytes = rows_and_bytes(manifest)
        else:
            rows, num_bytes = _estimate(pipeline, name, images)
        entries.append(
            dict(
                name=name,
                takes=list(node.stage.TAKES),
                key=node.key,
                action="cached" if manifest else "run",
                why="" if manifest else pipeline.why(name),
                rows=rows,
                bytes=num_bytes,
                estimated=manifest is None,
            )
        )
    return entries


def _num_images(pipeline: Pipeline) -> int | None:
    node = pipeline.nodes.get("ingest")
    count = getattr(node.stage, "num_images", None) if node else None
    return count(node.config) if node and count else None


def _estimate(pipeline: Pipeline, name: str, images: int | None) -> tuple[int | None, int | None]:
    earlier = [
        m
        for key in pipeline.storage.folders(name)
        if (m := read_manifest(pipeline.storage, name, key))
    ]
    if not earlier:
        return (images, None) if name == "ingest" else (None, None)
    last = max(earlier, key=lambda m: m.created)
    rows, num_bytes = rows_and_bytes(last)
    then = _images_behind(pipeline, last)
    scale = images / then if images and then else 1.0
    return round(rows * scale), round(num_bytes * scale)


def _images_behind(pipeline: Pipeline, manifest: Manifest) -> int | None:
    """Rows of the images table an earlier artifact was made from."""
    if manifest.stage == "ingest":
        return sum(f.rows or 0 for f in manifest.files.get("images", []))
    key = manifest.inputs.get("ingest")
    source = read_manifest(pipeline.storage, "ingest", key) if key else None
    return _images_behind(pipeline, source) if source else None


def rows_for_people(entries: list[dict[str, Any]]) -> str:
    lines = []
    for e in entries:
        about = "~" if e["estimated"] and e["rows"] is not None else ""
        rows = f"{about}{e['rows']:,} rows" if e["rows"] is not None else "? rows"
        num_bytes = f"{about}{size(e['bytes'])}" if e["bytes"] is not None else "?"
        mark = "=" if e["action"] == "cached" else ">"
        takes = ", ".join(e["takes"]) or "source data"
        lines.append(
            f"{mark} {e['name']:<13}{e['action']:<7}{rows:>14} {num_bytes:>10}  {e['key']}  "
            f"<- {takes}" + (f"  [{e['why']}]" if e["why"] else "")
        )
    todo = sum(e["action"] == "run" for e in entries)
    lines.append(f"{len(entries) - todo} cached, {todo} to run")
    return "\n".join(lines)
