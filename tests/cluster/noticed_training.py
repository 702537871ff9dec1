"""A training that is long enough to be disturbed: ``python noticed_training.py FOLDER``.

No failure is allowed, and no checkpoint is due by itself."""

from __future__ import annotations

import json
import sys

from toy_training import ToyTask, digests, toy_config, toy_plan

from gcdis_ray.runtime.ray_runtime import RayRuntime

STEPS, SLOW_S = 120, 0.4


def main(folder: str) -> None:
    compute = {
        "runtime": "ray", "workers": 2, "gpus_per_worker": 1, "max_failures": 0,
        "checkpoint_every_s": 86400, "wait_s": 1,
    }  # fmt: skip
    plan = toy_plan(folder, **compute)
    runtime = RayRuntime(plan.compute)
    task = ToyTask(toy_config(steps=STEPS), slow_s=SLOW_S)
    try:
        members = runtime.fit(
            task, plan, lambda at: print(json.dumps([at.done, at.note]), flush=True)
        )
    finally:
        runtime.close()
    print(json.dumps({"digests": digests(members)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
