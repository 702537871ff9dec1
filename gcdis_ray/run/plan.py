"""What a run would do, before it does it: writes nothing, starts nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gcdis_ray.run.pipeline import Pipeline, RunNode
from gcdis_ray.run.rates import Bill, Rates, hours
from gcdis_ray.stages.stage import offered
from gcdis_ray.store.artifacts import Size
from gcdis_ray.store.storage import read_manifest
from gcdis_ray.words import counted, duration, size


def describe(pipeline: Pipeline, rates: Rates | None = None) -> list[dict[str, Any]]:
    """Per node: name, takes, key, action (cached | run), why, rows, bytes, read_bytes, estimated.

    ``bytes`` is what the stage writes, but for checkpoints, which depend on how long a training
    takes; ``read_bytes`` what it reads, once per worker where models are loaded.

    The size of a stage that has to run is forecast by the stage from the sizes of its inputs. An
    earlier artifact of that stage corrects this: by its size over what its inputs would forecast.

    Args:
        rates: if given, also ``hours``: 0 of what is cached, None where no rate is known.
    """
    entries: list[dict[str, Any]] = []
    sizes: dict[str, Size] = {}
    for name, node in pipeline.nodes.items():
        manifest = pipeline.manifest(name)
        sizes[name] = manifest.size if manifest else _forecast(pipeline, node, sizes)
        if manifest and rates and "image_index" in manifest.files:
            sizes[name] = _counted(pipeline, name, sizes[name])
        entries.append(
            dict(
                name=name,
                takes=node.takes_from,
                key=node.key,
                action="cached" if manifest else "run",
                why="" if manifest else pipeline.why(name),
                rows=sizes[name].rows,
                bytes=sizes[name].bytes,
                read_bytes=sizes[name].read_bytes,
                estimated=manifest is None,
            )
        )
        if rates is not None:
            entries[-1]["hours"] = 0.0 if manifest else _hours(pipeline, node, sizes, rates)
    return entries


def _counted(pipeline: Pipeline, name: str, size: Size) -> Size:
    """The size of images that are there, with how many each split has."""
    made = pipeline.artifact(name)
    assert made is not None, "its manifest is there"
    shards = made.table("image_index").iter_shards(["split"])
    splits = Counter(split for shard in shards for split in shard["split"].to_pylist())
    return replace(size, splits=dict(splits))


def _hours(
    pipeline: Pipeline, node: RunNode, sizes: Mapping[str, Size], rates: Rates
) -> float | None:
    workload = offered(node.stage, "workload")
    inputs = {member: sizes[giver] for member, giver in node.takes.items()}
    uncounted = "images" in inputs and not inputs["images"].splits
    if workload is None or uncounted:
        return None
    work = workload(node.config, inputs, sizes[node.name])
    return hours(work, rates.stages.get(node.stage.ID), pipeline.config.compute).all


def _forecast(pipeline: Pipeline, node: RunNode, sizes: Mapping[str, Size]) -> Size:
    now = {member: sizes[giver] for member, giver in node.takes.items()}
    expected = node.stage.forecast(node.config, now)
    last = pipeline.newest(node.name)
    inputs: dict[str, Size] = {}
    for member, key in last.inputs.items() if last else ():
        giver = pipeline.nodes[node.takes[member]] if member in node.takes else None
        if giver and (earlier := read_manifest(pipeline.storage, giver.stage.ID, key)):
            inputs[member] = earlier.size
    if last is None or set(inputs) != set(node.inputs) or not inputs:
        return expected
    then = node.stage.forecast(node.config, inputs)
    return Size(
        round(expected.rows * (last.size.rows / then.rows if then.rows else 1)),
        round(expected.bytes * (last.size.bytes / then.bytes if then.bytes else 1)),
        expected.read_bytes,  # a run that went on from another's work tells too little of reading
        expected.weight_bytes,
        expected.splits,
    )


def rows_for_people(entries: list[dict[str, Any]]) -> str:
    lines = []
    for e in entries:
        about = "~" if e["estimated"] else ""
        rows, written = f"{about}{e['rows']:,} rows", f"{about}{size(e['bytes'])}"
        read = f"reads {about}{size(e['read_bytes'])}"
        mark = "=" if e["action"] == "cached" else ">"
        takes = ", ".join(e["takes"]) or "source data"
        took = f"{_time(e['hours']):>13}" if "hours" in e else ""
        lines.append(
            f"{mark} {e['name']:<13}{e['action']:<7}{rows:>14} {written:>10}  {read:<16}{took}"
            f"  {e['key']}  <- {takes}" + (f"  [{e['why']}]" if e["why"] else "")
        )
    todo = sum(e["action"] == "run" for e in entries)
    lines.append(f"{len(entries) - todo} cached, {todo} to run")
    return "\n".join(lines)


def _time(hours: float | None) -> str:
    if not hours:
        return "not known" if hours is None else "-"
    return f"~{duration(3600 * hours)}"


def bill_for_people(bill: Bill, rates: Rates, pipeline: Pipeline) -> str:
    """What is still to run, in time and money, and what that is taken from."""
    compute = pipeline.config.compute
    gpus = round(compute.workers * compute.gpus_per_worker)
    trainers = counted(gpus, "GPU") if gpus else counted(compute.workers, "worker")
    line = f"~{duration(3600 * bill.hours)} on {trainers}, "
    line += counted(compute.data_workers, "data worker")
    if bill.cost is not None:
        line += f": {bill.cost:,.2f}"
    if bill.without:
        line += f" (without {', '.join(bill.without)}: not known)"
    known = "estimates" if rates.estimated else "measured"
    return f"{line}\nrates ({known}): {rates.what}"
