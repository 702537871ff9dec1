"""What tests on several nodes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from raylets import Cluster


@pytest.fixture(scope="module")
def cluster(s3_endpoint: str) -> Iterator[Cluster]:  # workers inherit S3's credentials
    with Cluster() as cluster:
        yield cluster
