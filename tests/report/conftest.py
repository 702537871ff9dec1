import pytest
from synthetic_run import make_run, page_of

from gcdis_ray.report.view import RunView


@pytest.fixture(scope="session")
def finished_run() -> RunView:
    return make_run()


@pytest.fixture(scope="session")
def finished_page(finished_run: RunView) -> str:
    return page_of(finished_run)
