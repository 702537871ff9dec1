"""Entry point for a Ray job: ``ray job submit --working-dir . -- python jobs/run.py CONFIG``.

A job runs in a copy of the working directory that Ray throws away. Relative paths in the config
therefore are below ``$GCDIS_HOME`` on the head (the folder ``gcdis_ray`` of its user, unless set):
data is read from there and results stay there. On several nodes it must be a folder they share, or
the paths must be absolute or ``s3://`` addresses. The scenes of ``quickstart.yaml`` are written
there first.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gcdis_ray.cli import main


def run(config: str, *arguments: str) -> int:
    path = Path(config).resolve()
    home = Path(os.environ.get("GCDIS_HOME") or Path.home() / "gcdis_ray")
    home.mkdir(parents=True, exist_ok=True)
    os.chdir(home)
    print(f"relative paths are below {home}", file=sys.stderr)
    has_root = any("stages.ingest.root=" in argument for argument in arguments)
    if path.name == "quickstart.yaml" and not has_root:
        status = main(["digits", "runs/digits-scenes"])
        if status:
            return status
    return main(["run", str(path), *arguments])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: python jobs/run.py CONFIG [--set KEY=VALUE ...]")
    raise SystemExit(run(*sys.argv[1:]))
