"""Deleting on a real S3: real backups go completely, what is held or restored stays, and a name that was deleted is free again."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from airflow_provider_milvus_backup.core.attempt import Attempt
from airflow_provider_milvus_backup.core.catalog import read_catalog
from airflow_provider_milvus_backup.core.catalog_entry import COMPLETE, OFFICIAL, UNFINISHED
from airflow_provider_milvus_backup.core.deleting import apply_policy, delete
from airflow_provider_milvus_backup.core.errors import BackupInUse, ConfigError, StorageDenied
from airflow_provider_milvus_backup.core.holds import hold, release
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.restore import RestoreRun
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from airflow_provider_milvus_backup.core.retention_policy import RetentionPolicy
from airflow_provider_milvus_backup.core.store import ObjectStore
from tests.golden_backups.expected import GOLDEN
from tests.integration import data
from tests.integration.clusters import A_BUCKET, READER, VAULT, Lines, Listing, listing, location

if TYPE_CHECKING:
    from demo import servers
    from tests.integration.conftest import Zoo

ROOT = "of/deleting"
ME = Owner("dag/run/delete/-1")


def copied(zoo: Zoo, name: str) -> ObjectStore:
    """Put the files of a backup of every shape into a root of their own, the commit mark last; its name stays what it was."""
    source, store = ObjectStore(zoo.cluster.backups), ObjectStore(location(zoo.cluster.s3, VAULT, f"{ROOT}/{name}"))
    keys = sorted(listing(zoo.cluster.s3, A_BUCKET, f"backup/{zoo.name}/"), key=lambda key: (key.endswith("backup_meta.json"), key))
    for key in keys:
        store.write(f"{ROOT}/{name}/{key.removeprefix('backup/')}", source.read(key))
    return store


def there(s3: servers.S3Server, name: str) -> Listing:
    return listing(s3, VAULT, f"{ROOT}/{name}/")


def test_a_backup_of_every_shape_goes_and_what_is_beside_it_stays(zoo: Zoo) -> None:
    store, s3 = copied(zoo, "whole"), zoo.cluster.s3
    for stray in ("zoo_2/meta/backup_meta.json", "zoo.txt", "zoo/notes/why.txt"):
        store.write(f"{ROOT}/whole/{stray}", b"stays")
    before = there(s3, "whole")
    assert len(before) > 100
    told = delete(store, zoo.name, ME, Reporter(Lines()))
    left = there(s3, "whole")
    assert sorted(left) == [f"{ROOT}/whole/{stray}" for stray in ("zoo.txt", "zoo/notes/why.txt", "zoo_2/meta/backup_meta.json")]
    gone = [size for key, (size, _) in before.items() if key not in left]
    assert (told.state, told.objects, told.bytes) == (COMPLETE, len(gone), sum(gone))
    with pytest.raises(ConfigError, match=r"'zoo' in .* is not a backup: it holds '.*/zoo/notes/why.txt'"):
        delete(store, zoo.name, ME, Reporter(Lines()))
    assert there(s3, "whole") == left


def test_a_backup_of_the_official_tool_can_be_held_released_and_deleted(s3: servers.S3Server) -> None:
    store, name = ObjectStore(location(s3, VAULT, f"{ROOT}/official")), ""
    for path in sorted((GOLDEN / "head-snapshot").rglob("*"), key=lambda path: (path.name == "backup_meta.json", path)):
        if path.is_file():
            name = name or read_name()
            store.write(f"{ROOT}/official/{name}/{path.relative_to(GOLDEN / 'head-snapshot')}", path.read_bytes())
    before = there(s3, "official")
    until = datetime.now(timezone.utc) + timedelta(days=1)
    held = hold(store, name, "audit", "ann", until, ME, Reporter(Lines()))
    with pytest.raises(ConfigError, match=rf"'{name}' is on hold of ann until {held['until'][:10]}.*: audit"):
        delete(store, name, ME, Reporter(Lines()))
    (found,) = read_catalog(store).entries
    assert (found.tool, found.hold) == (OFFICIAL, held)
    release(store, name, ME, Reporter(Lines()))
    assert there(s3, "official") == before
    assert delete(store, name, ME, Reporter(Lines())).objects == len(before)
    assert there(s3, "official") == {}


def read_name() -> str:
    return str(json.loads((GOLDEN / "head-snapshot" / "meta" / "backup_meta.json").read_bytes())["name"])


def test_a_key_that_may_only_read_deletes_nothing_and_is_told_so(zoo: Zoo) -> None:
    copied(zoo, "readonly")
    before = there(zoo.cluster.s3, "readonly")
    with pytest.raises(StorageDenied, match="access denied"):
        delete(ObjectStore(location(zoo.cluster.s3, VAULT, f"{ROOT}/readonly", READER)), zoo.name, ME, Reporter(Lines()))
    assert there(zoo.cluster.s3, "readonly") == before


def test_a_backup_cannot_be_deleted_while_it_is_restored_and_its_name_is_free_afterwards(zoo: Zoo) -> None:
    a, name = zoo.cluster, CollectionName("default", "zoo_many_undeleted")
    a.backup("deleted", "zoo_many")
    store = ObjectStore(a.backups)
    run = RestoreRun.open(a.settings, Reporter(a.log), Patience(timeout=280))
    try:
        state = run.start("deleted", "undeleted", RestoreOptions(suffix="_undeleted"))
        with pytest.raises(BackupInUse, match=r"'deleted' is in use and cannot be deleted: .* restore backup 'deleted'"):
            delete(store, "deleted", ME, Reporter(a.log))
        run.wait(state, 1.0)
        run.finish(state)
    finally:
        run.close()
    assert a.contents(name) == a.contents(CollectionName("default", "zoo_many"))
    a.drop(name)
    assert delete(store, "deleted", ME, Reporter(a.log)).state == COMPLETE
    assert listing(a.s3, A_BUCKET, "backup/deleted/") == {}
    assert "deleted" not in [entry.name for entry in read_catalog(store).entries]
    assert a.backup("deleted", "zoo_many")["rows"]
    delete(store, "deleted", ME, Reporter(a.log))


def test_a_policy_removes_what_it_does_not_keep(zoo: Zoo) -> None:
    a = zoo.cluster
    for number in range(3):
        a.backup(f"kept_{number}", str(data.MANY.name), "meta_only")
        time.sleep(1.1)  # backups of one second stay or go together
    store, log = ObjectStore(a.backups), Lines()
    store.write("backup/kept_begun/provider/attempt.json", Attempt("an-id", ME).to_json())
    others = {key: found for key, found in listing(a.s3, A_BUCKET, "backup/").items() if not key.startswith("backup/kept_")}
    policy = RetentionPolicy(keep_last=1, name_pattern="kept_*")
    shown = apply_policy(store, policy, ME, Reporter(log), dry_run=True)
    done = apply_policy(store, policy, ME, Reporter(log))
    assert (done["table"], sorted(done["removed"])) == (shown["table"], ["kept_0", "kept_1"])
    assert {entry.name: entry.state for entry in read_catalog(store, "kept_*", unfinished=True).entries} == {
        "kept_2": COMPLETE,
        "kept_begun": UNFINISHED,
    }
    delete(store, "kept_2", ME, Reporter(log))
    delete(store, "kept_begun", ME, Reporter(log))
    assert listing(a.s3, A_BUCKET, "backup/") == others
