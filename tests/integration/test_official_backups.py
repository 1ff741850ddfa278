"""Backups of every generation of the official tool come back row by row."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.errors import UnsupportedServer
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from tests import official_backups
from tests.golden_backups.expected import GOLDEN
from tests.integration import data
from tests.integration.clusters import Cluster, admin, everything, listing
from tests.integration.conftest import Zoo

ROOT = "backup"


def backup_name(generation: str) -> str:
    return "by_" + "".join(c if c.isalnum() else "_" for c in generation)


def target(generation: str) -> CollectionName:
    return CollectionName("default", f"from_{backup_name(generation)}")


def full_meta(cluster: Cluster, name: str) -> dict[str, Any]:
    answer = admin(cluster.s3).get_object(Bucket=cluster.backups.bucket, Key=f"{ROOT}/{name}/meta/full_meta.json")
    return dict(json.loads(answer["Body"].read()))


def rewrite(cluster: Cluster, generation: str, change: Callable[[dict[str, Any]], None] | None = None, name: str = "") -> str:
    """Make the backup ``head`` into one of another generation, for real."""
    name, meta = name or backup_name(generation), full_meta(cluster, "head")
    if change:
        change(meta)
    files, objects = official_backups.rewrite(meta, generation, ROOT, name)
    client, bucket = admin(cluster.s3), cluster.backups.bucket
    for key, source in objects.items():
        client.copy_object(Bucket=bucket, Key=key, CopySource={"Bucket": bucket, "Key": source})
    for key, content in files.items():
        client.put_object(Bucket=bucket, Key=key, Body=content)
    return name


@pytest.fixture(scope="module")
def restored(a: Cluster, head: dict[str, Any]) -> list[str]:
    """All generations restored."""
    a.restore_all(
        {
            rewrite(a, generation): RestoreOptions(rename={"zoo_many": target(generation).collection}, load="never")
            for generation in official_backups.GENERATIONS
        }
    )
    data.load(a.server, [target(generation) for generation in official_backups.GENERATIONS])
    return a.log.lines


@pytest.mark.parametrize("generation", official_backups.GENERATIONS)
def test_every_row_comes_back(a: Cluster, zoo: Zoo, restored: list[str], generation: str) -> None:
    assert a.contents(target(generation), load=False) == zoo.rows[data.MANY.name]


@pytest.mark.parametrize("generation", official_backups.GENERATIONS)
def test_schema_and_index_come_back(a: Cluster, restored: list[str], generation: str) -> None:
    expected, found = a.server.describe(data.MANY.name), a.server.describe(target(generation))
    assert list(found.schema.fields) == list(expected.schema.fields)
    assert found.schema.enable_dynamic_field
    assert found.shards_num == expected.shards_num
    assert data.indexes(a.client(), target(generation).collection) == data.indexes(a.client(), data.MANY.name.collection)


def test_a_backup_without_full_meta_says_what_may_be_missing(restored: list[str]) -> None:
    assert any("full_meta.json is missing" in line for line in restored)


def test_a_snapshot_backup_is_refused_by_a_milvus_without_snapshots(a: Cluster) -> None:
    name = "golden_head_snapshot"
    for path in (path for path in (GOLDEN / "head-snapshot").rglob("*") if path.is_file()):
        key = f"{ROOT}/{name}/{path.relative_to(GOLDEN / 'head-snapshot').as_posix()}"
        admin(a.s3).put_object(Bucket=a.backups.bucket, Key=key, Body=path.read_bytes())
    before = everything(a)
    with pytest.raises(UnsupportedServer, match=r"'golden_head_snapshot'.*snapshot format.*3\.0\.1 or newer.*version v[23]\."):
        a.restore(name, suffix="_never", allow_downgrade=True)
    assert everything(a) == before


def move_deletes_into_l0(cluster: Cluster, name: str, *, everywhere: bool) -> int:
    """Make the delta logs of a backup those of L0 segments, of all partitions or of their own; returns how many there are."""
    client, bucket, meta = admin(cluster.s3), cluster.backups.bucket, full_meta(cluster, name)
    (collection,) = meta["collection_backups"]
    prefix, moved = f"{ROOT}/{name}/binlogs/delta_log/{collection['collection_id']}", 0
    for partition in collection["partition_backups"]:
        for segment in [segment for segment in partition["segment_backups"] if segment.get("deltalogs")]:
            moved += 1
            logs = segment.pop("deltalogs")
            l0 = {"segment_id": moved, "collection_id": collection["collection_id"], "is_l0": True, "size": 0, "deltalogs": logs}
            if everywhere:
                collection.setdefault("l0_segments", []).append({**l0, "partition_id": -1})
            else:
                partition["segment_backups"].append({**l0, "partition_id": partition["partition_id"], "group_id": moved})
            place = f"-1/{moved}" if everywhere else f"{partition['partition_id']}/{moved}/{moved}"
            for log in (log["log_path"].rpartition("/")[2] for entry in logs for log in entry["binlogs"]):
                source = f"{prefix}/{partition['partition_id']}/{segment['segment_id']}/{segment['segment_id']}/{log}"
                client.copy_object(Bucket=bucket, Key=f"{prefix}/{place}/{log}", CopySource={"Bucket": bucket, "Key": source})
                client.delete_object(Bucket=bucket, Key=source)
    client.put_object(Bucket=bucket, Key=f"{ROOT}/{name}/meta/full_meta.json", Body=json.dumps(meta))
    return moved


@pytest.mark.parametrize("everywhere", [True, False])
def test_deletes_in_l0_segments_are_folded_for_a_milvus_that_does_not_know_them(
    a: Cluster, zoo: Zoo, head: dict[str, Any], *, everywhere: bool
) -> None:
    name = f"by_l0_{everywhere}".lower()
    assert move_deletes_into_l0(a, rewrite(a, "0.5.10", name=name), everywhere=everywhere) > 0
    a.restore(name, rename={"zoo_many": f"from_{name}"}, load="never")
    assert a.contents(CollectionName("default", f"from_{name}")) == zoo.rows[data.MANY.name]
    assert not [key for key in listing(a.s3, a.backups.bucket, "restore-temp-") if "folded" in key]
