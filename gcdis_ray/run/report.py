"""The HTML page of a run, written where its artifacts are or to a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gcdis_ray.curating.replay import replay_over
from gcdis_ray.errors import StorageError
from gcdis_ray.report.page import Report, write_report
from gcdis_ray.report.projection import Projection, check_projection
from gcdis_ray.report.section import Section
from gcdis_ray.report.view import RunView, StageRow
from gcdis_ray.run.pipeline import iter_status
from gcdis_ray.stages.stage import Stage, offered
from gcdis_ray.store.artifacts import Artifact
from gcdis_ray.training.plan import Progress, Show

if TYPE_CHECKING:
    from gcdis_ray.run.pipeline import Pipeline


def view_of(pipeline: Pipeline) -> RunView:
    """What exists of a run so far."""
    artifacts = pipeline.artifacts()
    return RunView(
        name=pipeline.config.name,
        recipe=pipeline.config.recipe,
        seed=pipeline.config.seed,
        config=pipeline.config.model_dump(mode="json"),
        storage=pipeline.storage.uri,
        stages=cast("list[StageRow]", list(iter_status(pipeline))),
        artifacts=artifacts,
        names=_names(pipeline, artifacts),
    )


def _names(pipeline: Pipeline, artifacts: Mapping[str, Artifact]) -> dict[int, str]:
    """What people call classes, if any of them has been discovered."""
    if not pipeline.acts:
        return {}
    giver = pipeline.giver("assignments")
    found = artifacts.get(giver) if giver else None
    return replay_over(found, pipeline.acts).names if found else {}


def offered_sections(
    stages: Mapping[str, Stage],
    view: RunView,
    openers: Collection[str] = (),
    show: Show = lambda progress: None,
) -> list[Section]:
    """What the stages that are done show of a run: each of the run as it has left it, without what
    is sealed unless it may open that.

    Args:
        stages: by node, in the recipe's order.
        openers: nodes that may open sealed members.
        show: how many stages have been asked.
    """
    sealed = {*openers, *(n for n, stage in stages.items() if _gives_sealed(stage))}
    found: list[Section] = []
    for asked, (name, stage) in enumerate(stages.items()):
        show(Progress(asked, len(stages), "stages", note=name))
        hook = offered(stage, "sections")
        if hook and name in view.artifacts:
            seen = view.until(name)
            found += hook(seen if name in openers else seen.without(sealed - {name}))
    return found


def _gives_sealed(stage: Stage) -> bool:
    return any(member.sealed for member in getattr(stage, "GIVES", ()))


def write_run_report(
    pipeline: Pipeline,
    output: str | None = None,
    *,
    projection: Projection = "pca",
    only_if_missing: bool = False,
    show: Show = lambda progress: None,
) -> str:
    """Where the page of what exists so far has been written.

    Args:
        output: a file; None: below ``reports/`` in the run's storage, named by the last key. What
            is too much for one page goes to a folder beside it, ``<page>_files``.
        projection: of the map.
        only_if_missing: leave a page that is there for these artifacts.
        show: how far it is.

    Raises:
        StorageError: it cannot be written.
        ConfigError: the projection is not installed.
    """
    check_projection(projection)
    view = view_of(pipeline)
    done = [row["key"] for row in view.stages if row["state"] == "done"]
    name = f"reports/{pipeline.config.name}-{done[-1][:8] if done else 'empty'}.html"
    if only_if_missing and name in pipeline.storage.list("reports"):
        return f"{pipeline.storage.uri}/{name}"
    view = replace(view, beside=_beside(Path(output or name)), projection=projection)
    stages = {name: node.stage for name, node in pipeline.nodes.items()}
    openers = {name for name, node in pipeline.nodes.items() if node.wired.opens_sealed}
    report = write_report(view, offered_sections(stages, view, openers, show))
    if output:
        try:
            _write_to(Path(output), report)
        except OSError as error:
            raise StorageError(error.strerror or str(error), where=f"--output {output}") from error
        return str(Path(output).absolute())
    for leaf, text in report.leaves:  # before the page, which links to them
        pipeline.storage.write(f"reports/{view.beside}/{leaf}", text.encode())
    pipeline.storage.write(name, report.page.encode())
    return f"{pipeline.storage.uri}/{name}"


def _write_to(path: Path, report: Report) -> None:
    """The page, and what is beside it before it."""
    folder = path.with_name(_beside(path))
    for leaf, text in report.leaves:
        folder.mkdir(exist_ok=True)
        (folder / leaf).write_bytes(text.encode())
    path.write_bytes(report.page.encode())


def _beside(page: Path) -> str:
    """Folder for what is too much for a page, beside it."""
    return f"{page.stem}_files"
