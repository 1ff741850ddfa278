"""Verifying real backups of models of every line: what a clean one is, what the manifest holds, and what goes on while it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest

from airflow_provider_milvus_backup.core import committing
from airflow_provider_milvus_backup.core.catalog import read_catalog
from airflow_provider_milvus_backup.core.errors import BackupDamaged, BackupInUse
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.manifest import Manifest, from_json
from airflow_provider_milvus_backup.core.meta import SNAPSHOT
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.store import ObjectStore
from airflow_provider_milvus_backup.core.verification import BINLOGS, CHECKSUMS, LEVELS, Verification
from airflow_provider_milvus_backup.core.verifying import verify
from tests.contract import shapes

from .restoring import NAME, deletes
from .worlds import World

Milvus = Callable[..., World]
ME = Owner("dag/run/verify/-1")


def found(world: World, level: str = BINLOGS, name: str = "nightly") -> Verification:
    return verify(ObjectStore(world.settings.backup_storage), name, ME, Reporter(world.log), level=level)


def manifest(world: World, name: str = "nightly") -> Manifest:
    return from_json(world.read(f"backup/{name}/provider/manifest.json"))


def recorded(world: World, name: str = "nightly") -> dict[str, tuple[int, str]]:
    return {item.key: (item.size, item.etag) for item in manifest(world, name).objects()}


def there(world: World, *parts: str) -> dict[str, tuple[int, str]]:
    """Size and MD5 of what lies in some directories of the backup."""
    keys = [key for key in world.keys("backup/nightly") if key.startswith(parts)]
    contents = {key: world.read(f"backup/nightly/{key}") for key in keys}
    return {key: (len(content), hashlib.md5(content).hexdigest()) for key, content in contents.items()}


def put(world: World, key: str, content: bytes) -> None:
    world.model.bucket.put(f"{world.root}/backup/nightly/{key}", content)


@pytest.mark.parametrize("version", ["2.4.5", "2.5.10", "2.6.20", "3.0.1"])
def test_a_clean_backup_is_ok_at_every_level(milvus: Milvus, version: str) -> None:
    world = milvus(version)
    deletes(world)
    rows = world.backup()["rows"]
    results = [found(world, level) for level in LEVELS]
    assert [(one.findings, one.compared_with, one.intact) for one in results] == [([], "manifest", ["default.docs"])] * 3
    objects = there(world, "binlogs/")
    size = sum(count for count, _ in objects.values())
    assert [(one.objects, one.bytes) for one in results] == [(len(objects), size)] * 3
    assert [(one.read_objects, one.read_bytes, one.unproven) for one in results] == [(0, 0, 0), *[(len(objects), size, 0)] * 2]
    assert (results[2].segments, rows > 0) == (len(world.saved()), True)
    (entry,) = read_catalog(ObjectStore(world.settings.backup_storage)).entries
    assert entry.verified == {"level": BINLOGS, "time": results[2].time, "ok": True, "damaged_segments": [], "sample": None}
    assert entry.leases == []


def test_the_manifest_holds_every_object_and_every_meta_file_as_they_are(milvus: Milvus) -> None:
    world = milvus("2.4.24")
    deletes(world)
    world.backup()
    files = {key.removeprefix("meta/"): world.read(f"backup/nightly/{key}") for key in there(world, "meta/")}
    said = manifest(world)
    assert said.meta == {file: (len(content), hashlib.sha256(content).hexdigest()) for file, content in files.items()}
    assert (said.md5, said.backup_id) == (True, json.loads(files["backup_meta.json"])["id"])
    assert recorded(world) == there(world, "binlogs/")


def test_the_files_of_a_snapshot_are_in_the_manifest_and_read(milvus: Milvus) -> None:
    world = milvus("3.0.1")
    deletes(world)
    world.backup(format=SNAPSHOT)
    assert recorded(world) == there(world, "bundle/")
    clean = found(world, CHECKSUMS)
    assert (clean.findings, clean.read_objects, clean.unproven) == ([], len(recorded(world)), 0)
    assert found(world).ok
    assert world.said("its files are read and compared, but not opened")
    key, content = next((key, world.read(f"backup/nightly/{key}")) for key in sorted(recorded(world)))
    put(world, key, bytes([content[0] ^ 1]) + content[1:])
    damaged = found(world, CHECKSUMS)
    assert [(one.kind, one.key) for one in damaged.findings] == [("changed", key), ("content", key)]
    assert ([damage.collection for damage in damaged.damage], damaged.intact) == (["default.docs"], [])


def test_a_backup_that_replaces_another_has_a_manifest_of_its_own_objects(milvus: Milvus) -> None:
    world = milvus("2.4.24")
    deletes(world)
    world.backup()
    first = manifest(world).backup_id
    world.model.delete(NAME, [9])
    world.model.insert(NAME, [shapes.row(500)])
    world.backup(if_exists="replace")
    assert manifest(world).backup_id != first
    assert recorded(world) == there(world, "binlogs/")
    assert found(world).ok


def test_a_backup_whose_replacement_died_before_its_commit_is_compared_with_what_is_left(
    milvus: Milvus, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = milvus("2.4.24")
    deletes(world)
    world.backup()
    old = manifest(world).backup_id
    world.model.insert(NAME, [shapes.row(500)])
    swap = ObjectStore.swap

    def dies(*_: object) -> None:
        raise RuntimeError("killed")

    def dies_at_the_mark(store: ObjectStore, key: str, content: bytes, etag: str) -> str:
        return dies() or "" if key.endswith("/backup_meta.json") else swap(store, key, content, etag)

    for place, name, death in ((committing, "committed", dies), (ObjectStore, "swap", dies_at_the_mark)):
        left = found(world)
        assert (left.ok, left.backup_id) == (True, old)
        with monkeypatch.context() as patched:
            patched.setattr(place, name, death)
            with pytest.raises(RuntimeError):
                world.backup(if_exists="replace")
    # By now its meta is the new one's; only the commit mark is still the old one's.
    with pytest.raises(BackupInUse, match=r"was replaced by .* but for the commit mark.* run that backup again"):
        found(world)
    world.backup(if_exists="replace")
    assert found(world).ok
    assert manifest(world).backup_id != old


def test_damage_names_the_segment_and_what_still_restores(milvus: Milvus) -> None:
    world, other = milvus("2.4.24"), ("default", "other")
    deletes(world)
    world.model.create_collection(other, shapes.schema("other"))
    world.model.insert(other, [shapes.row(1)])
    world.backup()
    (key,) = [key for key in there(world, "binlogs/insert_log/") if "/100/" in key][:1]
    segment = int(key.split("/")[-3])
    put(world, key, world.read(f"backup/nightly/{key}")[:-1])
    result = found(world)
    assert (result.damaged_segments, result.ok) == ([segment], False)
    assert [str(damage.collection) for damage in result.damage] + result.intact == ["default.docs", "default.other"]
    with pytest.raises(BackupDamaged, match=rf"in segment {segment}\. .* default\.docs: 1 of .* restored: default\.other\. .*{key}: has "):
        result.check()
    stored = json.loads(world.read("backup/nightly/provider/verified.json"))
    assert (stored["ok"], stored["damaged_segments"], stored["findings"][0]["kind"]) == (False, [segment], "size")
