import pytest
from synthetic_run import make_run

from gcdis_ray.report.page import write_report
from gcdis_ray.report.view import RunView


@pytest.fixture(scope="session")
def finished_run() -> RunView:
    return make_run()


@pytest.fixture(scope="session")
def finished_page(finished_run: RunView) -> str:
    return write_report(finished_run)
