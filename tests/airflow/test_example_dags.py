"""The example DAGs, run on real servers: what arrives is what was there, row by row."""

from __future__ import annotations

import pytest

from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
from demo.servers import MilvusServer
from tests.airflow import dag_runs
from tests.airflow.stack import Stack, in_environment, milvus_connection

pytestmark = pytest.mark.usefixtures("airflow_db")


def test_a_collection_is_backed_up_and_restored_beside_the_original(connected: Stack) -> None:
    run = dag_runs.run(dag_runs.load(dag_runs.EXAMPLES / "milvus_backup_and_restore.py", "milvus_backup_and_restore"))

    assert run.states() == {"backup": "success", "restore": "success"}
    rows = connected.rows("coll")
    assert len(rows) == 1294
    assert connected.rows("coll_bak") == rows
    assert connected.partitions("coll_bak") == connected.partitions("coll") == {"_default": 896, "archive": 398}
    backup, restore = run.result("backup"), run.result("restore")
    assert (backup["name"], backup["uri"], backup["rows"]) == ("my_backup", "s3://a-bucket/backup/my_backup", 1300)
    assert [(c["database"], c["name"], c["rows"]) for c in backup["collections"]] == [("default", "coll", 1300)]
    assert (restore["backup_name"], restore["collection_count"], restore["rows"]) == ("my_backup", 1, restore["collections"][0]["rows"])
    assert (restore["collections"][0]["source"], restore["collections"][0]["name"]) == ("default.coll", "coll_bak")


def test_every_collection_of_every_database_is_backed_up_by_a_task_of_its_own(connected: Stack) -> None:
    run = dag_runs.run(dag_runs.load(dag_runs.EXAMPLES / "milvus_nightly_backup.py", "milvus_nightly_backup"))

    names = run.result("collections")
    databases = sorted(connected.client().list_databases())
    there = [f"{database}.{name}" for database in databases for name in connected.collections(database)]
    assert names == there, "the order is the same in every run"
    assert {"default.coll", "default.tags", "second.docs"} <= set(names)
    assert run.states() == {"collections": "success", **{f"backup[{i}]": "success" for i in range(len(names))}}
    summaries = [run.result("backup", index) for index in range(len(names))]
    assert [f"{c['database']}.{c['name']}" for summary in summaries for c in summary["collections"]] == names
    assert len({summary["name"] for summary in summaries}) == len(names), "two task instances had one backup name"
    assert all(summary["name"].startswith("milvus_nightly_backup_2") for summary in summaries)

    hook = MilvusBackupHook()
    for name in ("default.tags", "second.docs"):
        hook.restore(summaries[names.index(name)]["name"], suffix="_nightly")
        assert connected.rows(f"{name}_nightly") == connected.rows(name)


def test_collections_move_to_a_cluster_with_another_bucket_and_other_credentials(stack: Stack, milvus_b: MilvusServer) -> None:
    connections = {
        "milvus_a": milvus_connection(stack.milvus, "a-bucket", "a_s3"),
        "milvus_b": milvus_connection(milvus_b, "b-bucket", "b_s3"),
        "a_s3": stack.aws_connection("a"),
        "b_s3": stack.aws_connection("b"),
        "migration_s3": stack.aws_connection("between"),
    }
    with in_environment(connections):
        dag = dag_runs.load(dag_runs.EXAMPLES / "milvus_migrate_cluster.py", "milvus_migrate_cluster")
        run = dag_runs.run(dag, {"collections": ["coll", "second.docs"]})

    assert run.states() == {"backup": "success", "restore": "success", "wait": "success"}
    for name in ("coll", "second.docs"):
        assert stack.rows(name, milvus_b) == stack.rows(name)
    submitted, summary = run.result("restore"), run.result("wait")
    assert stack.keys("b-bucket", f"restore-temp-{submitted['restore_id']}") == [], "staged objects were left"
    assert submitted["jobs"]
    assert (summary["restore_id"], summary["backup_name"]) == (submitted["restore_id"], submitted["backup_name"])
    assert [c["name"] for c in summary["collections"]] == ["coll", "docs"]
