"""The process of a drill is killed at a request, and the next try of its task, or the next run, leaves nothing of it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.names import restore_id
from tests.breaking.kill_world import Quiet
from tests.breaking.processes import Children, Point, Task, run_and_kill
from tests.integration import data
from tests.integration.clusters import A_BUCKET, VAULT, Cluster, admin, listing

BASE = "of/drills"
TASK = ("drill", "dag", "task", "-1")
DOCS = data.docs("drilled", partitions=["second"])
SCENARIOS = [
    ("the next try", Point("CreateDatabase")),
    ("the next run", Point("Import", number=2)),
    ("the next try", Point("DropCollection")),
    ("the next run", Point("DropDatabase")),
    ("the next run", Point("delete", f"^/{A_BUCKET}", after="DropDatabase")),
]


@pytest.fixture(scope="module")
def task(cluster: Cluster) -> Iterator[Task]:
    """A drill of a backup with rows in two partitions, in another bucket, into a database that is not there."""
    cluster.create(DOCS)
    DOCS.insert(cluster.client(), range(40))
    DOCS.insert(cluster.client(), range(100, 120), "second")
    data.flush(cluster.server, [DOCS])
    s3, milvus = cluster.s3, cluster.milvus
    keys = (s3.endpoint_url, s3.access_key, s3.secret_key)
    one = Task((milvus.host, milvus.port), keys, (milvus.bucket, milvus.root_path), (VAULT, BASE), "whole")
    replace(one, arguments={"collections": DOCS.name.collection}).run(cluster.log)
    yield replace(one, verb="drill", arguments={"database": "drills"}, restore_id=restore_id(TASK, "this run"))
    cluster.drop(DOCS.name)


def there(cluster: Cluster) -> dict[str, Any]:
    """Everything that a drill must leave as it was."""
    return {
        "collections": cluster.collections(),
        "staged": listing(cluster.s3, A_BUCKET, "restore-temp-"),
        "backup": {key: item for key, item in listing(cluster.s3, VAULT, f"{BASE}/").items() if not key.endswith("/drill.json")},
    }


def expire(cluster: Cluster) -> None:
    """Let all leases of drills run out, as they do a minute after the death of a process."""
    for bucket, prefix in ((A_BUCKET, "restore-temp-"), (VAULT, f"{BASE}/whole/provider/leases/")):
        for key in listing(cluster.s3, bucket, prefix):
            if key.endswith(".json") and not key.endswith("state.json"):
                held = json.loads(admin(cluster.s3).get_object(Bucket=bucket, Key=key)["Body"].read())
                admin(cluster.s3).put_object(Bucket=bucket, Key=key, Body=json.dumps({**held, "seconds": 0.0}).encode())


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    """One process for each scenario."""
    some = Children(len(SCENARIOS), 2)
    yield some
    some.close()


@pytest.mark.parametrize(("who", "point"), SCENARIOS, ids=[f"{point.operation}, {who}" for who, point in SCENARIOS])
def test_nothing_is_left_of_a_drill_whose_process_dies_at(cluster: Cluster, task: Task, children: Children, who: str, point: Point) -> None:
    before = there(cluster)
    with children.one() as child:
        code, requests = run_and_kill(task, child, point)
        assert code == -signal.SIGKILL, f"{point} never came, but {requests}\n{child.said()}"
    again = task.retried()
    if who == "the next run":
        expire(cluster)
        again = replace(task, restore_id=restore_id(TASK, "the next run"))
    assert again.run(Quiet())["rows"] == 60
    assert there(cluster) == before
