"""The process of a preflight is killed at a request: nobody takes its probes for anything, and a later preflight removes them."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import check_probes
from airflow_provider_milvus_backup.core.catalog import read_catalog
from airflow_provider_milvus_backup.core.check_subject import PROBES, STAGED_PROBES
from airflow_provider_milvus_backup.core.checking import FAIL
from airflow_provider_milvus_backup.core.store import ObjectStore
from tests.breaking.kill_world import Quiet
from tests.breaking.processes import Children, Point, Task, run_and_kill
from tests.integration import data
from tests.integration.clusters import VAULT, Cluster, admin, everything, location

DOCS = data.docs("preflown")
#: And whether the request leaves an upload in parts that is never completed.
POINTS = {
    "a probe was written": (Point("put", f"{PROBES}/.*/written$"), False),
    "another one was written on a condition": (Point("put-if"), False),
    "one was copied": (Point("copy"), False),
    "one was begun to be copied in parts": (Point("multipart", number=2), True),  # the first one looks for earlier uploads
    "a part of it was copied": (Point("multipart", number=3), True),
    "the probes were deleted": (Point("delete"), False),
    "one was written where restores stage": (Point("put", STAGED_PROBES), False),
}


@pytest.fixture(scope="module", autouse=True)
def _collection(cluster: Cluster) -> Iterator[None]:
    cluster.create(DOCS, range(40))
    yield
    cluster.drop(DOCS.name)


@pytest.fixture
def task(cluster: Cluster) -> Task:
    """A preflight of a backup storage of its own, in another bucket than Milvus's."""
    s3, milvus = cluster.s3, cluster.milvus
    keys, root = (s3.endpoint_url, s3.access_key, s3.secret_key), f"of/checks/{uuid.uuid4().hex}"
    return Task((milvus.host, milvus.port), keys, (milvus.bucket, milvus.root_path), (VAULT, root), DOCS.name.collection, verb="check")


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    """One process for each point."""
    some = Children(len(POINTS), 2)
    yield some
    some.close()


def without_probes(there: dict[str, Any], root: str) -> dict[str, Any]:
    probes = (f"{root}/{PROBES}/", STAGED_PROBES)
    buckets = {name: found for name, found in there.items() if name != "collections"}
    return there | {name: {key: item for key, item in found.items() if not key.startswith(probes)} for name, found in buckets.items()}


def uploads(cluster: Cluster, root: str) -> list[str]:
    found = admin(cluster.s3).list_multipart_uploads(Bucket=VAULT).get("Uploads", ())
    return [upload["Key"] for upload in found if upload["Key"].startswith(f"{root}/")]


@pytest.mark.parametrize(("point", "unfinished"), POINTS.values(), ids=POINTS)
def test_probes_of_a_check_that_died_are_no_backup_and_go_with_a_check_an_hour_later(
    cluster: Cluster, task: Task, children: Children, monkeypatch: pytest.MonkeyPatch, point: Point, unfinished: bool
) -> None:
    before, root = everything(cluster), task.backups[1]
    with children.one() as child:
        code, requests = run_and_kill(task, child, point)
        assert code == -signal.SIGKILL, f"{point} never came, but {requests}\n{child.said()}"
    left = everything(cluster)
    assert without_probes(left, root) == before
    assert read_catalog(ObjectStore(location(cluster.s3, VAULT, root)), unfinished=True).entries == []
    assert len(uploads(cluster, root)) == unfinished
    # Another check may still be at work with them.
    assert task.run(Quiet())["status"] != FAIL
    assert (everything(cluster), len(uploads(cluster, root))) == (left, unfinished)
    monkeypatch.setattr(check_probes, "LEFT", timedelta(minutes=-1))  # as an hour later
    assert task.run(Quiet())["status"] != FAIL
    assert (everything(cluster), uploads(cluster, root)) == (before, [])
