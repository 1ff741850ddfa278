"""Freshness on a real Milvus and a real S3: backups of either tool, collections that nobody backs up, and their real ages."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_milvus_backup.core.catalog_entry import FACTS
from airflow_provider_milvus_backup.core.freshness import FRESH, LATE, MISSING, NEW, FreshnessPolicy, FreshnessReport
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.settings import S3Location
from airflow_provider_milvus_backup.core.store import ObjectStore
from airflow_provider_milvus_backup.core.watching import Watch
from tests.integration import data
from tests.integration.clusters import VAULT, Lines, everything, listing, location

if TYPE_CHECKING:
    from tests.integration.clusters import Cluster
    from tests.integration.conftest import Zoo

ROOT = "of/freshness"


def looked(a: Cluster, place: S3Location, max_age: str | timedelta, **policy: Any) -> FreshnessReport:
    return Watch(ObjectStore(place), a.server, FreshnessPolicy(max_age, **policy), "default", Reporter(Lines())).look()


def statuses(report: FreshnessReport) -> dict[str, str]:
    return {one.name: one.status for one in report.collections}


def test_every_collection_of_a_backup_is_fresh_and_one_that_nobody_backs_up_is_missing(zoo: Zoo) -> None:
    a, name = zoo.cluster, CollectionName("default", "nobodys")
    shapes, began = [str(shape.name) for shape in data.ZOO], datetime.now(timezone.utc)
    a.create(data.docs(name.collection))
    try:
        before = everything(a)
        found = looked(a, a.backups, "26h", name_pattern=zoo.name, collections=[*shapes, str(name)])
        assert everything(a) == before, "looking changes nothing"
        assert statuses(found) == {str(name): NEW, **dict.fromkeys(shapes, FRESH)}
        assert {one.backup for one in found.collections} == {zoo.name, ""}
        (new,) = (one for one in found.collections if one.status == NEW)
        assert new.age is not None
        # The clocks of Milvus and of the store are those of one machine, and the store's has whole seconds.
        assert found.now - timedelta(seconds=new.age) >= began - timedelta(seconds=2)
        # The store's clock has whole seconds, so that it may be behind for a moment.
        instant = timedelta(milliseconds=1)
        data.wait_until(
            lambda: statuses(looked(a, a.backups, instant, name_pattern="no_such_*", collections=[str(name)])) == {str(name): MISSING}
        )
    finally:
        a.drop(name)


def test_a_backup_that_does_not_name_its_collections_says_so_in_its_meta_and_an_old_one_is_late(zoo: Zoo) -> None:
    a, place = zoo.cluster, location(zoo.cluster.s3, VAULT, ROOT)
    source, store = ObjectStore(a.backups), ObjectStore(place)
    keys = [key for key in listing(a.s3, a.backups.bucket, f"backup/{zoo.name}/") if "/binlogs/" not in key]
    for key in keys:
        below = key.removeprefix(f"backup/{zoo.name}/")
        if below.startswith("meta/"):  # as if the official tool had written it
            store.write(f"{ROOT}/{zoo.name}/{below}", source.read(key))
    collections = [str(shape.name) for shape in data.ZOO]
    found = looked(a, place, "26h", collections=collections)
    assert statuses(found) == dict.fromkeys(collections, FRESH)

    facts = json.loads(source.read(f"backup/{zoo.name}/{FACTS}"))
    facts["created"] = (datetime.now(timezone.utc) - timedelta(hours=30)).isoformat()
    store.write(f"{ROOT}/{zoo.name}/{FACTS}", json.dumps(facts).encode())
    found = looked(a, place, "26h", collections=collections)
    assert statuses(found) == dict.fromkeys(collections, LATE)
    assert {round((one.late or 0) / 600) for one in found.collections} == {24}, "four hours, give or take five minutes"
    store.delete([*listing(a.s3, VAULT, f"{ROOT}/")])
