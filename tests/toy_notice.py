"""A training whose node is about to be taken away: Ray is told what its watcher would tell."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from toy_training import ToyTask

from gcdis_ray.config import TrainingConfig
from gcdis_ray.training.loop import NOTICE_EVERY_S


class NoticedTask(ToyTask):
    """Notice is given before step ``notice_at``. Once a checkpoint is kept the node is gone; in the
    first try only, which ``noticed`` (a file for each part) tells from the next.

    For two workers of one part each, and no other checkpoint before.
    """

    def __init__(self, config: TrainingConfig, noticed: str, notice_at: int) -> None:
        super().__init__(config)
        self.noticed, self.notice_at = noticed, notice_at

    def batch(self, step: int, part: int) -> dict[str, Any]:
        file = Path(f"{self.noticed}-{part}")
        if step == self.notice_at and not file.exists():
            file.touch()
            _tell(deadline_s=3600)
            time.sleep(NOTICE_EVERY_S + 0.5)  # then rank 0 asks
        elif step == self.notice_at + 1 and part == 0 and _is_told():
            _wait_for_checkpoint()
            _tell(deadline_s=0)
            time.sleep(3600)  # until Ray ends this process
        return super().batch(step, part)


def _tell(deadline_s: float) -> None:
    from ray.train.v2._internal.execution.context import get_train_context
    from ray.train.v2.api.preemption import PreemptionInfo

    deadline_ms = int(1000 * (time.time() + deadline_s))
    info = PreemptionInfo(deadline_ms=deadline_ms, preempted_node_to_ranks={"node": [0, 1]})
    get_train_context().preemption_context.preemption_info = info


def _is_told() -> bool:
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info is not None


def _wait_for_checkpoint() -> None:
    import ray.train

    mode = ray.train.CheckpointConsistencyMode.COMMITTED
    while not ray.train.get_all_reported_checkpoints(mode):
        time.sleep(0.1)
