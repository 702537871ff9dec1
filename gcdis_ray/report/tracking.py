"""Training curves of a run, for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gcdis_ray.errors import ConfigError
from gcdis_ray.report.series import read_pace
from gcdis_ray.store.artifacts import Artifact


def write_curves(artifacts: Mapping[str, Artifact], folder: Path) -> int:
    """Write every ``history`` table, and the pace of its training, below ``folder``: a run of
    TensorBoard per stage.

    Returns:
        the number of values written.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "TensorBoard is not installed", where="gcdis track", fix="uv sync --extra track"
        ) from error
    written = 0
    for stage, artifact in artifacts.items():
        if not artifact.has("history"):
            continue
        with SummaryWriter(str(folder / f"{stage}-{artifact.key[:8]}")) as writer:
            for row in artifact.table("history").read().to_pylist():
                writer.add_scalar(row["name"], row["value"], row["step"])
                written += 1
            for name, (steps, values) in read_pace(artifact).items():
                for step, value in zip(steps.tolist(), values.tolist(), strict=True):
                    writer.add_scalar(name, value, step)
                    written += 1
    return written
