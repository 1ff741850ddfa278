"""The catalog on a real S3: backups of both tools, of every format and state, in one backup root."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_milvus_backup.core.attempt import Attempt
from airflow_provider_milvus_backup.core.catalog import describe, read_catalog
from airflow_provider_milvus_backup.core.catalog_entry import COMPLETE, DAMAGED, OFFICIAL, OURS, UNFINISHED
from airflow_provider_milvus_backup.core.errors import NotInStorage, StorageDenied
from airflow_provider_milvus_backup.core.lease import Lease, Owner
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.store import ObjectStore
from tests.golden_backups.expected import GOLDEN
from tests.integration.clusters import STRANGER, VAULT, location

if TYPE_CHECKING:
    from demo import servers
    from tests.integration.conftest import Zoo

ROOT = "of/catalog"


def place(store: ObjectStore, tree: str, name: str | None = None) -> str:
    """Put a golden backup into the store, the commit mark last; returns its name."""
    root, files = GOLDEN / tree, []
    for path in sorted((GOLDEN / tree).rglob("*"), key=lambda path: (path.name == "backup_meta.json", path)):
        files += [path] if path.is_file() else []
    own = str(json.loads(files[-1].read_bytes())["name"])
    for path in files:
        store.write(f"{ROOT}/{name or own}/{path.relative_to(root)}", path.read_bytes())
    return name or own


@pytest.fixture(scope="module")
def store(s3: servers.S3Server) -> ObjectStore:
    """A backup root with a backup of every kind, and with what is none."""
    store = ObjectStore(location(s3, VAULT, ROOT))
    for tree in ("0.4.0", "0.5.10", "head-snapshot"):
        place(store, tree)
    place(store, "0.5.4", name="renamed")
    place(store, "0.4.26", name="cut")
    store.write(f"{ROOT}/cut/meta/backup_meta.json", b'{"id":"7c1f2f0e')
    for path in ("binlogs/insert_log/1/2/3/3/0/4", "binlogs/delta_log/1/2/3/3/5"):
        store.write(f"{ROOT}/foreign/{path}", b"12345")
    store.write(f"{ROOT}/begun/provider/attempt.json", Attempt("an-id", Owner("dag.backup", 0, 3)).to_json())
    store.write(f"{ROOT}/files/insert_log/1/2/3/0/4", b"of a Milvus")
    store.write(f"{ROOT}/files/stats_log/1/2/3/0/4", b"of a Milvus")
    store.write(f"{ROOT}/readme.txt", b"a file")
    return store


def name_of(tree: str) -> str:
    return str(json.loads((GOLDEN / tree / "meta" / "backup_meta.json").read_bytes())["name"])


def test_backups_of_every_kind_are_listed_and_nothing_else(store: ObjectStore) -> None:
    began = datetime.now(timezone.utc)
    catalog = read_catalog(store, unfinished=True)
    assert {entry.name: (entry.state, entry.tool, entry.format) for entry in catalog.entries} == {
        name_of("0.4.0"): (COMPLETE, OFFICIAL, "binlog"),
        name_of("0.5.10"): (COMPLETE, OFFICIAL, "binlog"),
        name_of("head-snapshot"): (COMPLETE, OFFICIAL, "snapshot"),
        "renamed": (DAMAGED, OFFICIAL, ""),
        "cut": (DAMAGED, OFFICIAL, ""),
        "foreign": (UNFINISHED, OFFICIAL, ""),
        "begun": (UNFINISHED, OURS, ""),
    }
    found = {entry.name: entry for entry in catalog.entries}
    assert (found["foreign"].size, found["foreign"].objects, found["begun"].owner) == (10, 2, "dag.backup, try 3")
    assert abs(catalog.now - began) < timedelta(minutes=1)
    moments = {name: entry.committed or entry.written for name, entry in found.items()}
    assert [name for name, moment in moments.items() if not moment or abs(moment - began) > timedelta(minutes=10)] == []
    times = [entry.time for entry in catalog.entries]
    assert times == sorted(times, reverse=True)  # type: ignore[type-var]
    # Written to this store just now, but it records when it was made.
    assert catalog.entries[-1].name == name_of("0.4.0")
    assert [entry.name for entry in read_catalog(store, "[c-f]*", unfinished=True).entries if entry.state == UNFINISHED] == ["foreign"]


def test_a_later_backup_comes_first_whatever_its_name_is(s3: servers.S3Server) -> None:
    store = ObjectStore(location(s3, VAULT, f"{ROOT}_order"))
    names = ["nightly_10", "nightly_9", "a"]
    full = json.loads((GOLDEN / "0.5.10" / "meta" / "full_meta.json").read_bytes())
    for number, name in enumerate(names):
        head = {"id": name, "name": name, "size": 1, "milvus_version": "2.5.20"}
        facts = {"version": 1, "backup_id": name, "created": f"2026-01-0{number + 1}T00:00:00+00:00", "collections": []}
        for file, content in (("meta/full_meta.json", {**full, **head}), ("provider/catalog.json", facts), ("meta/backup_meta.json", head)):
            store.write(f"{ROOT}_order/{name}/{file}", json.dumps(content).encode())
    assert [entry.name for entry in read_catalog(store).entries] == names[::-1]


def test_whoever_works_on_a_backup_is_shown_by_the_clock_of_the_store(store: ObjectStore) -> None:
    lease = Lease(store, f"{ROOT}/begun/provider/lease.json", Owner("dag.backup", 0, 4), "write backup 'begun'", Reporter())
    lease.take()
    (found,) = read_catalog(store, "begun", unfinished=True).entries
    assert [text.partition(" (")[0] for text in found.leases] == ["dag.backup, try 4"]
    lease.give_up()
    (found,) = read_catalog(store, "begun", unfinished=True).entries
    assert found.leases == []


def test_a_snapshot_is_described_by_files_and_bytes(store: ObjectStore) -> None:
    name = name_of("head-snapshot")
    raw = json.loads((GOLDEN / "head-snapshot" / "meta" / "full_meta.json").read_bytes())["collection_backups"]
    told = [one.get("snapshot_backup", {}) for one in raw]
    found = describe(store, name)
    assert [(one["objects"], one["bytes"]) for one in found["collections"]] == [
        (one.get("total_files", 0), one.get("total_bytes", 0)) for one in told
    ]


def test_a_bucket_that_may_not_be_listed_or_is_not_there_is_an_error_that_says_so(s3: servers.S3Server) -> None:
    with pytest.raises(StorageDenied, match=f"cannot list '{ROOT}' in .*{VAULT}.*access denied"):
        read_catalog(ObjectStore(location(s3, VAULT, ROOT, user=STRANGER)))
    with pytest.raises(NotInStorage, match="the bucket does not exist"):
        read_catalog(ObjectStore(location(s3, "no-such-bucket")))
    assert read_catalog(ObjectStore(location(s3, VAULT, "nothing/here"))).entries == []


def test_a_backup_of_ours_shows_what_the_task_returned(zoo: Zoo) -> None:
    store, told = ObjectStore(zoo.cluster.backups), zoo.summary
    (found,) = read_catalog(store, zoo.name).entries
    assert (found.state, found.tool, found.strategy) == (COMPLETE, OURS, told["strategy"])
    assert (found.size, found.objects, found.rows) == (told["bytes"], told["objects"], told["rows"])
    assert found.server_version == told["server_version"]
    assert found.collections == [f"{one['database']}.{one['name']}" for one in told["collections"]]
    assert found.created
    assert found.committed
    second = timedelta(seconds=1)  # the store's clock has whole ones
    assert zoo.began - 2 * second <= found.created <= found.committed <= zoo.ended + second
    assert found.committed - found.created >= timedelta(seconds=told["seconds"]) - 2 * second
    assert shown(describe(store, zoo.name)) == told["collections"]


def shown(described: dict[str, Any]) -> list[dict[str, Any]]:
    """What a description says of collections that a summary says too."""
    keys = ("database", "name", "rows", "segments", "objects", "bytes")
    return [{key: collection[key] for key in keys} for collection in described["collections"]]
