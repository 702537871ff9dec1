"""A notice board: what workers want the driver to know while Ray has the floor."""

from __future__ import annotations

from collections import Counter
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

STARTED = "started"  # posted by a worker once it has its resources and runs our code


class _Board:
    def __init__(self) -> None:
        self._posts: list[Any] = []
        self._tries: Counter[str] = Counter()
        self._stopping = False

    def post(self, item: Any) -> bool:
        self._posts.append(item)
        return self._stopping

    def stop(self, stopping: bool) -> None:
        self._stopping = stopping

    def take(self) -> list[Any]:
        posts, self._posts = self._posts, []
        return posts

    def count_try(self, what: str) -> int:
        self._tries[what] += 1
        return self._tries[what]


class Board:
    """Handle to the board; pickles to workers. Losing a post loses no work, so errors are mute.

    It lies on the driver's node, which a run cannot lose and go on: on any other it would take
    what workers ask of it along when that node dies."""

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Board)
        actor = actor.options(scheduling_strategy=here)
        self._actor: Any = actor.remote()

    def post(self, item: Any) -> None:
        """Returns at once."""
        self._actor.post.remote(item)

    def tell(self, item: Any) -> bool:
        """Post, and hear whether the driver wants the work to end."""
        try:
            return ray.get(self._actor.post.remote(item), timeout=5)
        except RayError:
            return False

    def stop(self, stopping: bool) -> None:
        """What workers hear from now on; driver only."""
        ray.get(self._actor.stop.remote(stopping))

    def count_try(self, what: str) -> int:
        """How often ``what`` has been tried, this time included."""
        return ray.get(self._actor.count_try.remote(what))

    def take(self) -> list[Any]:
        """Everything posted since the last call, in order of arrival; driver only."""
        try:
            return ray.get(self._actor.take.remote(), timeout=5)
        except RayError:
            return []
