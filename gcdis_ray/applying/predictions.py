"""Predictions of new images as a run of recipe ``predict``: cached, resumed, on any runtime."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gcdis_ray.applying.outputs import IMAGES, PICTURES, RESULTS, TABLES, Outputs
from gcdis_ray.applying.pictures import PictureRequest
from gcdis_ray.applying.trained import Trained
from gcdis_ray.config import ComputeConfig, RunConfig, apply_overrides
from gcdis_ray.errors import ConfigError
from gcdis_ray.run.checks import before_run
from gcdis_ray.run.graph import make_config
from gcdis_ray.run.opened import note_run
from gcdis_ray.run.pipeline import Event, Pipeline
from gcdis_ray.runtime.choose import LazyRuntime
from gcdis_ray.runtime.devices import is_gpu_here
from gcdis_ray.runtime.ray_session import cluster_address
from gcdis_ray.words import counted, duration, printed

NAME = "predictions"
_SETTABLE = ("compute.", "stages.images.", "stages.predict.", "storage_endpoint")
_LOCAL_GPU, _RAY_GPU = 1.0, 0.25  # of an actor that predicts


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Args:
        images: folder, ``s3://`` prefix, or a ``.txt`` file that lists them.
        out: folder or ``s3://`` prefix.
        limits: ``min_score`` and ``max_per_image`` where they are not to be those of the run.
        compute: fields of :class:`~gcdis_ray.config.ComputeConfig`.
        overrides: of the config, ``key=value``.
        pictures: none if None.
    """

    images: str
    out: str
    limits: dict[str, Any] = field(default_factory=dict)
    compute: dict[str, Any] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    pictures: PictureRequest | None = None


@dataclass(frozen=True)
class Applied:
    """What came of it.

    Args:
        summary: as ``summary.json`` has it.
        seconds: that prediction took; 0 where nothing was to do.
        fresh: something was written.
    """

    summary: dict[str, Any]
    uri: str
    seconds: float
    fresh: bool

    def lines(self) -> list[str]:
        """For people."""
        told = self.summary
        images, left = told["images"], told["quarantined"]
        found = counted(told["predictions"], "object")
        text = f"{found} in {counted(images, 'image')}"
        if self.seconds:
            text += f", {duration(self.seconds)}, {images / self.seconds:.3g} images/s"
        lines = [text]
        if left:
            first = [f"{printed(f['uri'])} ({f['reason']})" for f in told["quarantine"]]
            more = ", ..." if left > len(first) else ""
            lines.append(f"{counted(left, 'file')} set aside: {', '.join(first)}{more}")
        if told["pictures"]:
            lines.append(f"pictures: {self.uri}/{PICTURES} ({told['pictures']['drawn']:,})")
        return [*lines, f"results: {self.uri}/{RESULTS}, {IMAGES}, {TABLES}/"]


def make_predict_config(trained: Trained, request: Request) -> RunConfig:
    """Raises ConfigError: a value out of its range, or one that cannot be set."""
    for text in request.overrides:
        if not text.startswith(_SETTABLE):
            raise ConfigError(
                f"{text.partition('=')[0]} cannot be set here",
                where="--set",
                fix=f"what begins with {', '.join(_SETTABLE)}; of a run, name the storage",
            )
    data: dict[str, Any] = {
        "name": NAME,
        "recipe": "predict",
        "storage": request.out,
        "compute": dict(request.compute),
        "stages": {
            "model": {
                "weights": trained.uri,
                "endpoint": trained.storage.endpoint,
                "sha256": trained.sha256,
                "num_bytes": trained.num_bytes,
                "spec": dict(trained.spec),
                "classes": [dict(row) for row in trained.table],
            },
            "images": {"images": request.images},
            "predict": {**trained.limits, **request.limits},
        },
    }
    return make_config(apply_overrides(data, request.overrides), where="gcdis predict")


def _with_a_gpu(compute: ComputeConfig) -> ComputeConfig:
    """Unless somebody has decided: the GPU of this machine, if the work is done here."""
    decided = {"gpus_per_data_worker", "gpus_per_worker"} & compute.model_fields_set
    if decided or (compute.runtime == "ray" and cluster_address(compute)) or not is_gpu_here():
        return compute
    share = _LOCAL_GPU if compute.runtime == "local" else _RAY_GPU
    return compute.model_copy(update={"gpus_per_data_worker": share})


def apply(
    trained: Trained,
    request: Request,
    show: Callable[[Event], None],
    tell: Callable[[str], None],
) -> Applied:
    """Predict, and write what people and other programs read.

    Args:
        show: is told how far stages are.
        tell: is told a line on how far files are.

    Raises:
        GcdisError: as of a run; images that are not there or of no use; a place for results that
            is another run's, or holds the images.
    """
    config = make_predict_config(trained, request)
    _check_apart(trained, request)
    before_run(config)
    # Before torch is imported: sums in this process, too, must not depend on the machine's cores.
    os.environ["OMP_NUM_THREADS"] = str(config.compute.threads)
    config = config.model_copy(update={"compute": _with_a_gpu(config.compute)})
    pipeline = Pipeline(config, show=show)
    _check_own(pipeline)
    todo = [name for name in pipeline.nodes if not pipeline.manifest(name)]
    if todo:
        pipeline.storage.check()
    note_run(pipeline)
    began, runtime = time.perf_counter(), LazyRuntime(config.compute)
    try:
        pipeline.run(runtime, show)
    finally:
        runtime.close()
    seconds = time.perf_counter() - began if todo else 0.0
    outputs = Outputs(pipeline, trained, request.pictures)
    stale = outputs.stale()
    summary = outputs.write(tell) if stale else outputs.summary()
    return Applied(summary, pipeline.storage.uri, seconds, bool(todo) or stale)


def _check_apart(trained: Trained, request: Request) -> None:
    """Results would be images of the next time, or mix with the run's."""
    images, out = (_place(text) for text in (request.images, request.out))
    if out == images or out.startswith(f"{images}/"):
        raise ConfigError(
            f"lies in the folder of images, {request.images}",
            where=f"--out {request.out}",
            fix="name a folder elsewhere",
        )
    if out == _place(trained.storage.uri):
        raise ConfigError(
            "holds the model itself",
            where=f"--out {request.out}",
            fix="name a folder of its own, such as one in it",
        )


def _check_own(pipeline: Pipeline) -> None:
    """Folders of results are emptied before they are written: nobody else's may be there."""
    storage = pipeline.storage
    noted = set(storage.list("runs"))
    mine = {f"runs/{NAME}.json"}
    if noted == mine or (not noted and not storage.list("")):
        return
    raise ConfigError(
        "is the storage of a run" if noted - mine else "holds other files",
        where=f"--out {storage.uri}",
        fix="name a folder of its own",
    )


def _place(text: str) -> str:
    return text.rstrip("/") if "://" in text else os.path.abspath(os.path.expanduser(text))
