"""A real S3 for the session, and contract servers of any version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from airflow_provider_milvus_backup.core import imports
from demo import servers

from .worlds import BUCKET, World, world


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.S3Server]:
    """The S3 of all servers."""
    with servers.s3_server(tmp_path_factory.mktemp("s3")) as server:
        server.create_bucket(BUCKET)
        yield server


@pytest.fixture
def milvus(s3: servers.S3Server) -> Iterator[Callable[..., World]]:
    """Return what runs a Milvus of a version until the test ends."""
    with ExitStack() as running:
        yield lambda version, **options: running.enter_context(world(version, s3, **options))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at jobs as often as suits a Milvus whose jobs take no time."""
    monkeypatch.setattr(imports, "FIRST_POLL", 0.03)
