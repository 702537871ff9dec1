import shutil
from pathlib import Path

import pytest
from sorted_run import write_run

from gcdis_ray.naming.desk import Desk
from gcdis_ray.run.opened import open_run


@pytest.fixture(scope="session")
def shapes_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_run(tmp_path_factory.mktemp("shapes")))


@pytest.fixture
def shapes(shapes_made: Path, tmp_path: Path) -> str:
    """A storage of its own with the sorted run."""
    return str(shutil.copytree(shapes_made, tmp_path / "storage"))


@pytest.fixture
def desk(shapes: str) -> Desk:
    return Desk(open_run(shapes))
