import pytest
from made_once import made_once
from synthetic_run import make_run

from gcdis_ray.report.page import write_report
from gcdis_ray.report.view import RunView


@pytest.fixture(scope="session")
def finished_run() -> RunView:
    return make_run()


@pytest.fixture(scope="session")
def finished_page(finished_run: RunView, tmp_path_factory: pytest.TempPathFactory) -> str:
    return made_once(tmp_path_factory, "page", lambda folder: write_report(finished_run))
