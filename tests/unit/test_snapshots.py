"""Backups in snapshot format: meta written and read, paths that are not followed, what Milvus is told, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import snapshot_plan
from airflow_provider_milvus_backup.core.errors import BackupDamaged, BackupError, ConfigError, ServerError
from airflow_provider_milvus_backup.core.imports import JobState
from airflow_provider_milvus_backup.core.meta import Backup, Collection, Database, FieldLogs, Log, Partition, Segment, SnapshotBackup
from airflow_provider_milvus_backup.core.meta_reader import from_files
from airflow_provider_milvus_backup.core.meta_writer import to_files
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from airflow_provider_milvus_backup.core.snapshot_plan import Keys, SnapshotPlace, Store, place

EXPORT = "bundle/exports/6f1e0b52-0a5e-4b0e-9c3e-7a6a8d3f2c11"
PATH = f"{EXPORT}/snapshots/100/metadata/7.json"
SCHEMA = {"name": "docs", "fields": [{"fieldID": 100, "name": "id", "is_primary_key": True, "data_type": 5}], "properties": []}


def collection(number: int = 100, path: str | None = PATH, files: int = 2, size: int = 30, **more: Any) -> Collection:
    snapshot = None if path is None else SnapshotBackup(path, files, size)
    name = CollectionName("default", f"docs_{number}")
    return Collection(number, name, SCHEMA, 2, 0, [Partition(5, "_default", [])], snapshot=snapshot, **more)


def backup(*collections: Collection) -> Backup:
    return Backup("an-id", "nightly", "v3.0.1", list(collections) or [collection()], [Database("default", 1)], format="snapshot")


# ---- meta ----------------------------------------------------------------------------------------------------------------------


def test_a_backup_is_read_as_it_was_written_and_has_no_files_about_segments() -> None:
    whole = backup(collection(), collection(101, None))
    files = dict(to_files(whole, "files"))
    assert list(files) == ["collection_meta.json", "full_meta.json", "backup_meta.json"]
    assert from_files(files) == whole
    head, full = json.loads(files["backup_meta.json"]), json.loads(files["full_meta.json"])
    assert (head["format"], head["size"], full["format"], full["size"]) == ("snapshot", 30, "snapshot", 30)
    first, second = full["collection_backups"]
    assert first["snapshot_backup"] == {"metadata_path": PATH, "total_files": 2, "total_bytes": 30}
    assert (first["size"], first["partition_backups"]) == (
        30,
        [{"partition_id": 5, "partition_name": "_default", "collection_id": 100, "size": 0}],
    )
    assert "snapshot_backup" not in second
    del files["full_meta.json"]
    assert from_files(files) == replace(whole, databases=[])


def test_a_backup_in_binlog_format_says_nothing_about_formats() -> None:
    segment = Segment(9, 5, 1, [FieldLogs(100, [Log(1, 10)])], [], 9)
    plain = Collection(100, CollectionName("default", "docs"), SCHEMA, 1, 0, [Partition(5, "_default", [segment])])
    files = dict(to_files(Backup("an-id", "nightly", "v3.0.1", [plain]), "files"))
    assert len(files) == 5
    assert not any(b"snapshot" in content or b'"format"' in content for content in files.values())


def test_segments_contradict_the_snapshot_format() -> None:
    segment = Segment(9, 5, 1, [FieldLogs(100, [Log(1, 10)])], [], 9)
    for wrong in (
        replace(collection(), partitions=[Partition(5, "_default", [segment])]),
        replace(collection(), l0_segments=[replace(segment, partition_id=-1, group_id=None, inserts=[], is_l0=True)]),
    ):
        files = dict(to_files(backup(wrong), "files"))
        with pytest.raises(BackupDamaged, match="holds segments, and the backup says that it is in snapshot format"):
            from_files(files)


@pytest.mark.parametrize(
    "path",
    [
        "",
        f"/{PATH}",
        f"s3://elsewhere/{PATH}",
        PATH.removeprefix("bundle/"),
        f"../other/{PATH}",
        f"bundle/../../other/{PATH.removeprefix('bundle/')}",
        f"bundle/./{PATH.removeprefix('bundle/')}",
        f"bundle//{PATH.removeprefix('bundle/')}",
        f"bundle/a%2F../{PATH.removeprefix('bundle/')}",
        f"bundle/a\\..\\{PATH.removeprefix('bundle/')}",
        f"{PATH}?versionId=1",
        f"{PATH}/",
        f"{PATH}\n",
        f"{EXPORT}/snapshots/x/metadata/7.json",
        f"{EXPORT}/snapshots/100/metadata/../7.json",
        f"{EXPORT}/snapshots/100/metadata.json",
        f"bundle/{'a' * 1100}/snapshots/100/metadata/7.json",
        "binlogs/insert_log/snapshots/100/metadata/7.json",
    ],
)
def test_a_metadata_path_that_milvus_does_not_write_is_not_followed(path: str) -> None:
    assert not snapshot_plan.is_metadata_path(path)
    files = dict(to_files(backup(collection(path=path)), "files"))
    with pytest.raises(BackupDamaged, match=r"snapshot_backup\.metadata_path is .*, not bundle/…/snapshots/"):
        from_files(files)


@pytest.mark.parametrize(("path", "root"), [(PATH, f"{EXPORT}/"), ("bundle/snapshots/100/metadata/7.json", "bundle/")])
def test_both_places_of_a_bundle_are_known(path: str, root: str) -> None:
    assert (snapshot_plan.bundle_root(path), snapshot_plan.collection_of(path)) == (root, 100)


# ---- whether all of it is there ------------------------------------------------------------------------------------------------


def lying(root: str = EXPORT, number: int = 100) -> dict[str, int]:
    return {
        f"{root}/snapshots/{number}/metadata/7.json": 5,
        f"{root}/files/insert_log/{number}/1": 15,
        f"{root}/files/insert_log/{number}/2": 15,
    }


def test_a_bundle_of_which_a_file_is_missing_is_damaged_whichever_it_is() -> None:
    whole = backup(collection(size=35))
    snapshot_plan.check_bundles(whole, whole.collections, lying())
    for gone in lying():
        there = {key: size for key, size in lying().items() if key != gone}
        with pytest.raises(BackupDamaged, match=r"default\.docs_100"):
            snapshot_plan.check_bundles(whole, whole.collections, there)


def test_files_that_milvus_has_not_published_make_up_for_none() -> None:
    whole = backup(collection(size=35))
    there = {key: size for key, size in lying().items() if not key.endswith("/2")} | {f"{EXPORT}/_staging/metadata.json": 500}
    with pytest.raises(BackupDamaged, match="incomplete: 2 files of 20 bytes"):
        snapshot_plan.check_bundles(whole, whole.collections, there)


def test_collections_whose_bundles_share_a_directory_are_counted_together() -> None:
    whole = backup(*(collection(number, f"bundle/snapshots/{number}/metadata/7.json", size=35) for number in (100, 101)))
    there = lying("bundle", 100) | lying("bundle", 101)
    snapshot_plan.check_bundles(whole, whole.collections[:1], there)
    with pytest.raises(
        BackupDamaged, match=r"incomplete: 5 files of 55 bytes lie below bundle/, and Milvus had written 4 files of 70 bytes"
    ):
        snapshot_plan.check_bundles(whole, whole.collections[:1], {key: size for key, size in there.items() if not key.endswith("101/2")})


def test_only_what_no_bundle_of_the_backup_holds_is_a_stray() -> None:
    left = {"bundle/exports/another-try/files/insert_log/100/1": 9}
    others = {"meta/full_meta.json": 1, "provider/plan.json": 1}
    assert list(snapshot_plan.strays(backup(), lying() | left | others)) == list(left)
    assert list(snapshot_plan.strays(backup(collection(path=None)), left | others)) == list(left)


# ---- what Milvus is told -------------------------------------------------------------------------------------------------------

MINIO = Store("http://minio:9000", "us-east-1", "a-bucket", "connection 'one'")
OREGON = Store("https://s3.us-west-2.amazonaws.com", "us-west-2", "vault", "connection 'vault'")
IRELAND = Store("https://s3.eu-west-1.amazonaws.com", "eu-west-1", "a-bucket")


def no_keys() -> Keys:
    raise AssertionError("no key is needed")


@pytest.mark.parametrize("endpoint", ["http://minio:9000", "http://MINIO:9000/"])
def test_in_milvus_own_store_neither_endpoint_nor_key_is_sent(endpoint: str) -> None:
    found = place(MINIO, Store(endpoint, "eu", "vault"), "/backup/nightly/bundle/", no_keys)
    assert found == SnapshotPlace("s3://vault/backup/nightly/bundle")
    assert place(IRELAND, replace(IRELAND, endpoint=f"{IRELAND.endpoint}:443"), "b", no_keys).uri == "s3://a-bucket/b"


def test_a_key_with_odd_characters_is_written_as_milvus_reads_a_uri() -> None:
    assert place(MINIO, MINIO, "my backups/50%#?/n/bundle", no_keys).uri == "s3://a-bucket/my%20backups/50%25%23%3F/n/bundle"


def test_in_another_region_of_one_cloud_endpoint_and_key_are_sent_and_never_shown() -> None:
    found = place(IRELAND, OREGON, "backup/nightly/bundle", lambda: Keys("AKIA-x", "s3cr3t"))
    assert found.uri == "minio://s3.us-west-2.amazonaws.com/vault/backup/nightly/bundle"
    assert json.loads(found.external_spec) == {
        "extfs": {
            "cloud_provider": "aws",
            "use_ssl": "true",
            "region": "us-west-2",
            "access_key_id": "AKIA-x",
            "access_key_value": "s3cr3t",
        }
    }
    shown = repr((found, Keys("AKIA-x", "s3cr3t", "t0ken")))
    assert not any(secret in shown for secret in ("AKIA-x", "s3cr3t", "t0ken"))


@pytest.mark.parametrize(
    ("milvus", "backups"),
    [
        (MINIO, OREGON),
        (OREGON, MINIO),
        (MINIO, replace(MINIO, endpoint="http://minio:9001")),
        (MINIO, replace(MINIO, endpoint="http://user:pw@s3")),
    ],
)
def test_another_store_is_refused_before_milvus_is_asked(milvus: Store, backups: Store) -> None:
    with pytest.raises(ConfigError, match=r"within one object store only: it uses .* and backups lie in .* binlog format") as caught:
        place(milvus, backups, "backup/nightly/bundle", no_keys)
    assert "pw" not in str(caught.value)


def test_a_session_token_is_refused_and_shown_to_nobody() -> None:
    with pytest.raises(ConfigError, match="no session token for snapshots, and connection 'vault' is reached with one") as caught:
        place(IRELAND, OREGON, "b", lambda: Keys("AKIA-x", "s3cr3t", "t0ken"))
    assert not any(secret in str(caught.value) for secret in ("AKIA-x", "s3cr3t", "t0ken"))


@pytest.mark.parametrize(
    ("target", "uri"),
    [
        ("s3://vault/root/n/bundle", "s3://vault/root/n/{}"),
        ("s3://vault/root/n/bundle", "https://minio:9000/vault/root/n/{}"),
        ("s3://vault/root/n/bundle", "s3://s3.us-west-2.amazonaws.com/vault/root/n/{}"),
        ("minio://s3.us-west-2.amazonaws.com/vault/root/n/bundle", "https://s3.us-west-2.amazonaws.com/vault/root/n/{}"),
        ("s3://vault/my%20root/n/bundle", "https://minio:9000/vault/my%20root/n/{}"),
    ],
)
def test_what_milvus_exported_is_found_however_it_spells_the_place(target: str, uri: str) -> None:
    assert snapshot_plan.metadata_path(SnapshotPlace(target), uri.format(PATH)) == PATH


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "not a uri",
        f"s3://another/root/n/{PATH}",
        f"s3://vault/root/another/{PATH}",
        f"s3://vault/root/n/../other/{PATH}",
        "s3://vault/root/n/bundle/exports/x/metadata.json",
        "s3://vault/root/n/bundle/../../m/snapshots/100/metadata/7.json",
        f"https://user:pw@minio:9000/vault/root/n/{PATH}",
        f"https://minio:9000/vault/root/n/{PATH}?X-Amz-Signature=pw",
        f"ftp://vault/root/n/{PATH}",
    ],
)
def test_an_export_to_another_place_cannot_be_used(uri: str) -> None:
    with pytest.raises(BackupError, match="which is no metadata below s3://vault/root/n/bundle"):
        snapshot_plan.metadata_path(SnapshotPlace("s3://vault/root/n/bundle"), uri)


# ---- what is refused, what is lost ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"meta_only": True}, "meta_only"),
        ({"cut_at_flush": True}, "cut_at_flush"),
        ({"if_exists": "append"}, "if_exists='append'"),
        ({"restore_indexes": False}, "restore_indexes=False"),
        ({"max_shards": 1}, "max_shards=1"),
    ],
)
def test_an_option_that_means_nothing_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{named} cannot be used with backup 'nightly', which is in snapshot format: \w+"):
        snapshot_plan.check_options(backup(), backup().collections, RestoreOptions(**options))


def test_options_that_change_nothing_of_the_snapshot_are_taken() -> None:
    taken = RestoreOptions(suffix="_new", if_exists="replace", load="never", restore_aliases=True, max_shards=2, allow_downgrade=True)
    snapshot_plan.check_options(backup(), backup().collections, taken)


def test_a_collection_without_a_snapshot_is_refused_unless_it_is_not_asked_for() -> None:
    half = backup(collection(), collection(101, None))
    snapshot_plan.check_options(half, half.collections[:1], RestoreOptions())
    with pytest.raises(BackupDamaged, match=r"holds no snapshot of default\.docs_101"):
        snapshot_plan.check_options(half, half.collections, RestoreOptions())


def test_a_restore_without_a_record_is_unknown_and_any_other_error_is_raised_again() -> None:
    for text in ("restore job not found: jobID=7", "snapshot job 7 not found"):
        assert snapshot_plan.lost(7, ServerError(text)).state is JobState.UNKNOWN
    with pytest.raises(ServerError, match="collection not found"):
        snapshot_plan.lost(7, ServerError("collection not found"))
