"""What is taken for a backup: nothing of another program, whose files and directories may have the same names."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from airflow_provider_milvus_backup.core import manifest, meta, raw_schema
from airflow_provider_milvus_backup.core.attempt import Attempt
from airflow_provider_milvus_backup.core.catalog import read_catalog
from airflow_provider_milvus_backup.core.catalog_entry import ATTEMPT, MANIFEST, MARK, OWN, PLAN, SCHEMAS, SUMMARY, is_backup
from airflow_provider_milvus_backup.core.deleting import apply_policy, delete
from airflow_provider_milvus_backup.core.errors import ConfigError
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.plan import BackupPlan
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.retention_policy import RetentionPolicy
from airflow_provider_milvus_backup.core.summary import BackupSummary
from benchmarks.catalog import backup
from benchmarks.collection import BACKUPS
from tests.unit.deletion_store import serving
from tests.unit.test_catalog import CONTENTS, files
from tests.unit.test_lease import Lines

ME = Owner("dag/run/thin/-1")


def test_only_what_a_backup_has_makes_a_directory_a_backup() -> None:
    export = "bundle/exports/6f1e0b52-0a5e-4b0e-9c3e-7a6a8d3f2c11/files/x"
    for key in ("binlogs/insert_log/1", "binlogs/delta_log/1/-1/2/3", "bundle/snapshots/1", export, "meta/segment_meta.json"):
        assert is_backup(files(key, "notes"), {})
    for key in ("insert_log/1/2", "binlogs/x", "meta/other.json", "provider/other.json", "bundle.js", "meta"):
        assert not is_backup(files(key), {})


def test_directories_of_other_programs_are_no_backups() -> None:
    for key in ("bundle/exports/report.csv", "bundle/snapshots/latest/x", "binlogs/insert_log/today.txt", "binlogs/mysql-bin.000001"):
        assert not is_backup(files(key), {})
    for key in OWN:
        for content in (b"", b"x", b"[]", b"{}", b'{"provider_schemas": {}, "format_version": "1.0"}', b'{"version": 1}'):
            assert not is_backup(files(key), {key: content})


def test_our_own_files_are_known_by_their_content() -> None:
    schemas, plan = raw_schema.to_file("an-id", {}), BackupPlan(meta.Backup("an-id", "nightly", "2.5", []), "flush", "files", "backup")
    summary = BackupSummary("nightly", "s3://b/nightly", "2.5", "flush", [], 1.0).to_dict()
    listed = manifest.to_json("an-id", {}, [], md5=True)
    own = {**CONTENTS, SCHEMAS: schemas, PLAN: plan.to_json(), SUMMARY: json.dumps(summary).encode(), MANIFEST: listed}
    assert own.keys() - {MARK} == OWN.keys()
    for key in OWN:
        assert is_backup((), {key: own[key]}), key


FOREIGN = {
    "app": {"bundle/exports/report.csv": b"1,2", "bundle/app.js": b"x", "meta/index.html": b"x"},
    "terraform": {"provider/schemas.json": b'{"format_version": "1.0"}', "provider/plan.json": b"{}", "provider/lease.json": b"{}"},
    "mysql": {"binlogs/bin.000001": b"x", "provider/manifest.json": b"[]"},
}


@pytest.mark.parametrize("root", [BACKUPS, ""])
def test_what_another_program_keeps_beside_the_backups_is_never_deleted(root: str) -> None:
    """However old it is, and whatever a policy says."""
    foreign = {f"{root}/{name}/{key}".lstrip("/"): content for name, kept in FOREIGN.items() for key, content in kept.items()}
    new = {f"{root}/{key.partition('/')[2]}".lstrip("/"): content for key, content in backup("new", data=1).items()}
    with serving(foreign, new, root=root) as (store, served):
        assert [entry.name for entry in read_catalog(store, unfinished=True).entries] == ["new"]
        policy = RetentionPolicy(keep_last=1, grace=timedelta())
        assert apply_policy(store, policy, ME, Reporter(Lines()))["removed"] == []
        for name in FOREIGN:
            with pytest.raises(ConfigError, match=f"'{name}' in .* is not a backup: it holds"):
                delete(store, name, ME, Reporter(Lines()))
        assert served.keys == {*foreign, *new}


def test_leftovers_of_a_deletion_by_another_tool_are_known_by_any_file_of_ours() -> None:
    attempt = Attempt("an-id", Owner("dag.backup")).to_json()
    for left in ({ATTEMPT: attempt}, {SCHEMAS: raw_schema.to_file("an-id", {})}, {ATTEMPT: b"{", PLAN: b'{"version": 1, "full_meta": {}}'}):
        with serving({f"{BACKUPS}/nightly/{key}": content for key, content in left.items()}) as (store, served):
            assert delete(store, "nightly", ME, Reporter(Lines())).state == "unfinished"
            assert served.keys == set()
