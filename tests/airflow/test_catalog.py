"""The hook's list of backups: plain JSON, from the storage alone."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from airflow_provider_milvus_backup.core.errors import BackupNotFound
from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
from benchmarks.catalog import DelimitingStore, backup, stored
from benchmarks.collection import BACKUPS
from benchmarks.slow_s3 import in_thread


def test_backups_are_listed_and_described_without_a_milvus(set_connection: Callable[..., None]) -> None:
    begun = {f"{BACKUPS}/begun/binlogs/insert_log/1": b"x"}
    with in_thread(DelimitingStore(stored({**backup("nightly_1"), **backup("weekly_1", ours=False), **begun}))) as endpoint:
        set_connection("aws_default", conn_type="aws", login="key", password="secret", extra={"endpoint_url": endpoint})
        set_connection("milvus_default", conn_type="milvus", host="nowhere.invalid")
        hook = MilvusBackupHook()
        listed = hook.list_backups()
        # Ours records when it began, the other one counts from its commit.
        assert [(one["name"], one["state"]) for one in listed] == [("weekly_1", "complete"), ("nightly_1", "complete")]
        assert json.loads(json.dumps(listed)) == listed
        assert [one["name"] for one in hook.list_backups("nightly_*")] == ["nightly_1"]
        assert {one["name"] for one in hook.list_backups(unfinished=True)} == {"nightly_1", "weekly_1", "begun"}
        found = hook.get_backup("begun")
        assert (found["state"], found["objects"], json.loads(json.dumps(found))) == ("unfinished", 1, found)
        with pytest.raises(BackupNotFound, match="nightly_2"):
            hook.get_backup("nightly_2")
