"""Backups of every generation of the official tool come back row by row."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.errors import UnsupportedFormat, UnsupportedServer
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.restore import RestoreRun
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from tests import official_backups
from tests.integration import data
from tests.integration.clusters import Cluster, admin, everything
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
    """All generations restored: submitted together, for each would wait some seconds for Milvus."""
    runs = []
    for generation in official_backups.GENERATIONS:
        name = rewrite(a, generation)
        options = RestoreOptions(rename={"zoo_many": target(generation).collection}, load="never")
        run = RestoreRun.open(a.settings, Reporter(a.log), Patience(timeout=280))
        runs.append((run, run.start(name, name, options)))
    for run, state in runs:
        run.wait(state, 1.0)
        run.finish(state)
        run.close()
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


def test_a_snapshot_backup_is_refused(a: Cluster, head: dict[str, Any]) -> None:
    name = rewrite(a, "l0compact", lambda meta: meta.update(format="snapshot"), "by_snapshot")
    before = everything(a)
    with pytest.raises(UnsupportedFormat, match=r"'by_snapshot'.*'snapshot' format.*binlog format only"):
        a.restore(name, suffix="_never")
    assert everything(a) == before


def _with_l0(partition: int | None) -> Callable[[dict[str, Any]], None]:
    def change(meta: dict[str, Any]) -> None:
        (collection,) = meta["collection_backups"]
        segment = {"segment_id": 7, "collection_id": collection["collection_id"], "is_l0": True, "size": 0, "num_of_rows": 1}
        if partition is None:
            collection["l0_segments"] = [{**segment, "partition_id": -1}]
        else:
            one = collection["partition_backups"][partition]
            one["segment_backups"].append({**segment, "partition_id": one["partition_id"], "group_id": 7})

    return change


@pytest.mark.parametrize(("partition", "name"), [(None, "by_l0_of_all"), (0, "by_l0_of_one")])
def test_deletes_in_l0_are_refused_by_a_milvus_that_would_ignore_them(
    a: Cluster, head: dict[str, Any], partition: int | None, name: str
) -> None:
    rewrite(a, "0.5.10", _with_l0(partition), name)
    before = everything(a)
    with pytest.raises(UnsupportedServer, match=rf"'{name}'.*default.zoo_many in L0 segments.*v2.3.5.*Milvus 2.4 or newer"):
        a.restore(name, suffix="_never")
    assert everything(a) == before
