"""The drill as a task: what it returns, which failures a retry is not wasted on, what a kill leaves, and the example DAG."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_milvus_backup._compat import AirflowFailException
from airflow_provider_milvus_backup.core.errors import Cancelled
from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
from airflow_provider_milvus_backup.operators.drill import MilvusRestoreDrillOperator
from demo.servers import MilvusServer
from tests.airflow import dag_runs
from tests.airflow.dag_runs import context
from tests.airflow.stack import Stack, in_environment, milvus_connection

CHECK = {"collection": "coll", "expression": "id >= 0", "min_count": 1}


def inventory(stack: Stack, server: MilvusServer | None = None, bucket: str = "a-bucket") -> tuple[list[str], list[str], list[str]]:
    """Return all collections of the default database, all databases, and what lies staged."""
    client = stack.client(server=server)
    return sorted(client.list_collections()), sorted(client.list_databases()), stack.keys(bucket, "restore-temp-")


@pytest.fixture
def drilled(connected: Stack, backed_up: dict[str, Any]) -> Iterator[Callable[..., dict[str, Any]]]:
    """Return what runs a drill of ``shared``; in the end nothing more may be there than before."""
    before = inventory(connected)

    def run(**arguments: Any) -> dict[str, Any]:
        given = {"backup_name": "shared", "poll_interval": 0.5, **arguments}
        task = MilvusRestoreDrillOperator(task_id="drill", backup_bucket="backups", **given)
        result = task.execute(context(task))
        assert isinstance(result, dict)
        return result

    yield run
    assert inventory(connected) == before


def test_a_drill_returns_the_recovery_time_and_the_catalog_shows_it(drilled: Callable[..., dict[str, Any]]) -> None:
    rendered = {**CHECK, "min_count": "1", "max_count": "1294"}
    found = drilled(checks=[rendered], max_seconds=280, database="drills", max_shards=1, allow_downgrade=True)
    assert json.loads(json.dumps(found)) == found
    assert (found["backup_name"], found["ok"], found["rows"], found["checks"]) == ("shared", True, 1294, 4)
    shown = MilvusBackupHook(backup_bucket="backups").get_backup("shared")["drilled"]
    assert (shown["ok"], shown["seconds"], shown["collections"]) == (True, found["seconds"], None)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"checks": [{**CHECK, "max_count": 2}], "max_seconds": 0.5}, "DrillFailed: .*expected 1 to 2, found 1,294; the recovery took"),
        ({"checks": [{**CHECK, "colection": "x"}]}, r"ConfigError: checks\[0\] has the unknown key 'colection'"),
        ({"checks": "coll"}, "ConfigError: checks 'coll' is not a list"),
        ({"sample": 0}, "ConfigError: sample 0 is not a number of collections"),
        ({"checks": [{**CHECK, "min_count": "one"}]}, "ConfigError: .*min_count 'one' is not a whole number"),
        ({"max_shards": 0}, "ConfigError: max_shards 0 is not a number of shards"),
        ({"allow_downgrade": "false"}, "ConfigError: allow_downgrade 'false' is neither True nor False"),
        ({"max_seconds": -1}, "ConfigError: max_seconds -1 is not a number of seconds"),
        ({"backup_name": "random"}, "ConfigError: backup_name 'random' does not say of which time"),
        ({"backup_name": "latest", "name_pattern": "no_such_*"}, "BackupNotFound: no backup is complete"),
    ],
)
def test_what_a_retry_cannot_help_fails_the_task_for_good(
    drilled: Callable[..., dict[str, Any]], wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(AirflowFailException, match=said):
        drilled(**wrong)


def test_a_killed_task_leaves_nothing(connected: Stack, wide: Any) -> None:
    before = inventory(connected)
    task = MilvusRestoreDrillOperator(task_id="drill", backup_bucket="backups", backup_name="wide", database="drills", poll_interval=0.1)
    dag_runs.meanwhile(lambda: "drills" in connected.client().list_databases(), task.on_kill)
    with pytest.raises(Cancelled):
        task.execute(context(task))
    after = MilvusRestoreDrillOperator(task_id="drill", backup_bucket="backups", backup_name="wide", load="never", poll_interval=0.1)
    assert after.execute(context(after, try_number=2))["rows"] == 120, "the next try, after what imports had kept from being dropped"
    assert inventory(connected) == before


@pytest.mark.usefixtures("airflow_db")
def test_the_example_drills_on_another_cluster(stack: Stack, milvus_b: MilvusServer, backed_up: dict[str, Any]) -> None:
    connections = {
        "milvus_drill": milvus_connection(milvus_b, "b-bucket", "b_s3"),
        "b_s3": stack.aws_connection("b"),
        "aws_default": stack.aws_connection("a"),
    }
    before = inventory(stack, milvus_b, "b-bucket")
    with in_environment(connections):
        dag = dag_runs.load(dag_runs.EXAMPLES / "milvus_restore_drill.py", "milvus_restore_drill")
        run = dag_runs.run(dag, {"bucket": "backups", "pattern": "shared"})
    assert run.states() == {"drill": "success"}
    result = run.result("drill")
    assert (result["backup_name"], result["ok"], result["max_seconds"]) == ("shared", True, 3600)
    assert inventory(stack, milvus_b, "b-bucket") == before
