"""Entry point for a Ray job: ``ray job submit --working-dir . -- python jobs/run.py CONFIG``,
or ``--from-sweep URI`` in the place of CONFIG.

A job runs in a copy of the working directory that Ray throws away. Relative paths in the config
therefore are below ``$GCDIS_HOME`` on the head (the folder ``gcdis_ray`` of its user, unless set):
data is read from there and results stay there. On several nodes it must be a folder they share, or
the paths must be absolute or ``s3://`` addresses. The scenes of ``quickstart.yaml`` are written
there first.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gcdis_ray.cli import main


def enter_home() -> None:
    """Work below ``$GCDIS_HOME``."""
    home = Path(os.environ.get("GCDIS_HOME") or Path.home() / "gcdis_ray")
    home.mkdir(parents=True, exist_ok=True)
    os.chdir(home)
    print(f"relative paths are below {home}", file=sys.stderr)


def write_quickstart_scenes(base: Path, arguments: Sequence[str]) -> int:
    """The scenes that config file ``base`` reads if it is ``quickstart.yaml``, and ``arguments``
    name no others; gives an exit status."""
    if base.name != "quickstart.yaml" or any("ingest.root=" in text for text in arguments):
        return 0
    return main(["digits", "runs/digits-scenes"])


def run(config: str, *arguments: str) -> int:
    path = Path(config).resolve()
    enter_home()
    if config.startswith("--"):  # --from-sweep: its data is where the sweep has found it
        return main(["run", config, *arguments])
    return write_quickstart_scenes(path, arguments) or main(["run", str(path), *arguments])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: python jobs/run.py CONFIG|--from-sweep URI [--set KEY=VALUE ...]")
    raise SystemExit(run(*sys.argv[1:]))
