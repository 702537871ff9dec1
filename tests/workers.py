"""Workers of a run on Ray, and the stages that ask for them."""

from __future__ import annotations

# As command lines name them: actors of data steps, ranks of trainings.
DATA, RANK = "ShardWorker", "RayTrainWorker"
DATA_STAGES = {
    "ingest",
    "propose",
    "crop",
    "embed",
    "count",
    "discover",
    "label",
    "predict",
    "evaluate",
}
NETWORK_STAGES = {"propose", "embed", "discover", "label", "predict"}  # in whose shards one runs
TRAINED_STAGES = {"propose", "discover", "segment"}


def kind_of(command: str) -> str:
    """``DATA``, ``RANK``, or nothing for any other process."""
    return next((kind for kind in (DATA, RANK) if kind in command.split(" ")[0]), "")
