"""The freshness sensor under a real scheduler and a real triggerer; collected only where Airflow has them in this form (conftest.py)."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta

from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
from tests.airflow.real import RealAirflow, until
from tests.airflow.stack import Stack

DATED = "backup/watched_old/provider/catalog.json"


def test_it_waits_in_the_triggerer_until_the_backup_is_there(real_airflow: RealAirflow, connected: Stack) -> None:
    hook, s3 = MilvusBackupHook(), connected.s3.client()
    try:
        hook.backup("watched_old", ["tags"])
        facts = json.loads(s3.get_object(Bucket="a-bucket", Key=DATED)["Body"].read())
        facts["created"] = (datetime.fromisoformat(facts["created"]) - timedelta(days=2)).isoformat()
        s3.put_object(Bucket="a-bucket", Key=DATED, Body=json.dumps(facts).encode())
        run = real_airflow.run("watches", {"collection": "tags", "backups": "watched_*"}, task_id="fresh")
        waiting = run.until("deferred")
        assert waiting["trigger"]["classpath"] == "airflow_provider_milvus_backup.triggers.freshness.MilvusBackupFreshnessTrigger"
        hook.backup("watched_new", ["tags"])
        run.until("success")
        assert [(one["name"], one["backup"]) for one in run.result()["collections"]] == [("default.tags", "watched_new")]
        # Of the log, the last lines may come after the state.
        until(lambda: re.search(r"48 h \d\d min old in 'watched_old', 22 h \d\d min late", run.log(1)), "the log says what was late")
        assert "planted-secret" not in run.log(1)
    finally:
        for name in ("watched_old", "watched_new"):
            hook.delete_backup(name)
