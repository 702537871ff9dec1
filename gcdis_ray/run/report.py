"""The HTML page of a run, written where its artifacts are or to a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from gcdis_ray.errors import StorageError
from gcdis_ray.report.page import write_report
from gcdis_ray.report.view import RunView, StageRow
from gcdis_ray.run.pipeline import iter_status

if TYPE_CHECKING:
    from gcdis_ray.run.pipeline import Pipeline


def write_run_report(
    pipeline: Pipeline, output: str | None = None, *, only_if_missing: bool = False
) -> str:
    """Where the page of what exists so far has been written.

    Args:
        output: a file; None: below ``reports/`` in the run's storage, named by the last key.
        only_if_missing: leave a page that is there for these artifacts.

    Raises:
        StorageError: it cannot be written.
    """
    stages = list(iter_status(pipeline))
    done = [stage["key"] for stage in stages if stage["state"] == "done"]
    name = f"reports/{pipeline.config.name}-{done[-1][:8] if done else 'empty'}.html"
    if only_if_missing and name in pipeline.storage.list("reports"):
        return f"{pipeline.storage.uri}/{name}"
    page = write_report(
        RunView(
            name=pipeline.config.name,
            recipe=pipeline.config.recipe,
            seed=pipeline.config.seed,
            config=pipeline.config.model_dump(mode="json"),
            storage=pipeline.storage.uri,
            stages=cast("list[StageRow]", stages),
            artifacts=pipeline.artifacts(),
        )
    ).encode()
    if output:
        try:
            Path(output).write_bytes(page)
        except OSError as error:
            raise StorageError(error.strerror or str(error), where=f"--output {output}") from error
        return str(Path(output).absolute())
    pipeline.storage.write(name, page)
    return f"{pipeline.storage.uri}/{name}"
