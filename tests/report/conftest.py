import pytest
from made_once import made_once
from synthetic_run import make_run, page_of

from gcdis_ray.report.view import RunView


@pytest.fixture(scope="session")
def finished_run() -> RunView:
    return make_run()


@pytest.fixture(scope="session")
def finished_page(finished_run: RunView, tmp_path_factory: pytest.TempPathFactory) -> str:
    return made_once(tmp_path_factory, "page", lambda folder: page_of(finished_run))
