"""Entry point for a Ray job: ``ray job submit --working-dir . -- python jobs/sweep.py SWEEP``.

Relative paths are below ``$GCDIS_HOME`` on the head, as in ``jobs/run.py``; the sweep file's own
``base`` is found beside it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gcdis_ray.cli import main
from gcdis_ray.config import read_yaml
from gcdis_ray.errors import GcdisError
from jobs.run import enter_home, write_quickstart_scenes


def base_of(path: Path) -> Path:
    """The config file that a sweep file varies."""
    try:
        return path.parent / str(read_yaml(path).get("base", ""))
    except GcdisError:
        return path  # the command itself will say what is wrong with the file


def sweep(file: str, *arguments: str) -> int:
    path = Path(file).resolve()
    enter_home()
    status = write_quickstart_scenes(base_of(path), arguments)
    return status or main(["sweep", str(path), *arguments])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: python jobs/sweep.py SWEEP [--set KEY=VALUE ...]")
    raise SystemExit(sweep(*sys.argv[1:]))
