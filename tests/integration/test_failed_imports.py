"""Imports that fail, or pretend to succeed: an error with all one needs, and what was created is gone again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.errors import BackupDamaged, ImportFailed, RowsMissing
from airflow_provider_milvus_backup.core.names import CollectionName
from demo import servers
from tests.integration import data
from tests.integration.clusters import A_BUCKET, VAULT, Cluster, admin, everything, listing, location

# In this order, so that the good one has ended when the broken one fails: a Milvus 2.3.5 whose collection is dropped while its import runs
# starts no other import for 50 seconds.
GOOD, BROKEN = CollectionName("default", "import_1_good"), CollectionName("default", "import_2_broken")
PLACES = ["in_place", "staged"]


@pytest.fixture(scope="module", autouse=True)
def backups(a: Cluster, s3: servers.S3Server) -> Iterator[None]:
    """Two collections backed up in Milvus's bucket (``in_place``) and in another one (``staged``)."""
    for name in (GOOD, BROKEN):
        a.create(data.docs(name.collection), range(50))
    a.backup("in_place", [GOOD.collection, BROKEN.collection])
    a.backup("staged", [GOOD.collection, BROKEN.collection], settings=replace(a.settings, backup_storage=location(s3, VAULT)))
    yield
    a.drop(GOOD, BROKEN)


def but_for_states(found: dict[str, Any]) -> dict[str, Any]:
    """Return what :func:`everything` found without the states that restores write beside the backup."""
    return {place: [item for item in content.items() if "/provider/restores/" not in item[0]] for place, content in found.items()}


def break_one(cluster: Cluster, bucket: str, name: str, collection: CollectionName) -> None:
    """Overwrite one insert binlog of a backup with zeros; its size stays."""
    cid = cluster.server.describe(collection).collectionID
    key, (size, _) = min(listing(cluster.s3, bucket, f"backup/{name}/binlogs/insert_log/{cid}/").items())
    admin(cluster.s3).put_object(Bucket=bucket, Key=key, Body=bytes(size))


@pytest.mark.parametrize("name", PLACES)
def test_a_job_that_ends_without_rows_is_an_error(a: Cluster, s3: servers.S3Server, name: str) -> None:
    """Milvus answers Completed for paths where the bucket it reads has nothing; here the connection names another bucket."""
    wrong = replace(a.settings, milvus_storage=location(s3, VAULT, "files"))
    # `in_place` is staged into the vault; `staged` lies there already. Milvus looks into neither.
    if name == "staged":
        wrong = replace(wrong, backup_storage=location(s3, VAULT))
    before = everything(a)
    # From 2.4 on Milvus looks before it takes a job.
    message = r"(import job \d+ into .*_bak.* 0 of 50 rows|does not find .*_bak).*another bucket than s3://vault.*dropped again"
    with pytest.raises(RowsMissing, match=message):
        a.restore(name, settings=wrong, suffix="_bak", load="never")
    assert but_for_states(everything(a)) == but_for_states(before)


@pytest.mark.parametrize("place", PLACES)
def test_a_failed_import_names_reason_job_and_files_and_is_undone(a: Cluster, s3: servers.S3Server, place: str) -> None:
    bucket = A_BUCKET if place == "in_place" else VAULT
    break_one(a, bucket, place, BROKEN)
    before = everything(a)
    with pytest.raises(ImportFailed) as caught:
        a.restore(place, settings=replace(a.settings, backup_storage=location(s3, bucket)), suffix="_bak")
    message = str(caught.value)
    root = f"backup/{place}/binlogs" if place == "in_place" else r"restore-temp-[^/]+/binlogs/\d+"
    assert re.search(r"import job \d+ into default.import_2_broken_bak, partition '_default', failed: \S+", message)
    assert re.search(rf"\(files: {root}/insert_log/\d+/\d+/", message)
    assert f"bucket {A_BUCKET!r}" in message
    assert "no reason" not in message
    assert "dropped again" in message
    assert but_for_states(everything(a)) == but_for_states(before)


def test_after_a_failed_import_the_same_restore_can_be_run_again(a: Cluster) -> None:
    """The first attempt created nothing that stays, so a repaired backup comes back whole."""
    a.backup("repaired", GOOD.collection)
    key, (size, _) = min(listing(a.s3, A_BUCKET, "backup/repaired/binlogs/insert_log/").items())
    body = admin(a.s3).get_object(Bucket=A_BUCKET, Key=key)["Body"].read()
    admin(a.s3).put_object(Bucket=A_BUCKET, Key=key, Body=bytes(size))
    with pytest.raises(ImportFailed):
        a.restore("repaired", suffix="_again", restore_id="again")
    admin(a.s3).put_object(Bucket=A_BUCKET, Key=key, Body=body)
    a.restore("repaired", suffix="_again", restore_id="again", load="always")
    target = GOOD._replace(collection="import_1_good_again")
    assert sorted(a.contents(target, load=False)["_default"]) == list(range(50))
    a.drop(target)


def test_an_object_that_milvus_would_import_by_accident_is_refused(a: Cluster) -> None:
    a.backup("stray", GOOD.collection)
    key = min(listing(a.s3, A_BUCKET, "backup/stray/binlogs/insert_log/"))
    admin(a.s3).put_object(Bucket=A_BUCKET, Key=f"{key}0", Body=b"of nobody")
    before = everything(a)
    with pytest.raises(BackupDamaged, match=f"{key}0.* is not part of the backup"):
        a.restore("stray", suffix="_bak")
    assert everything(a) == before
