"""Drills of Milvus A's backups on Milvus B: what they find, what they write down, and that they leave nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import drilling, finishing
from airflow_provider_milvus_backup.core.catalog import read_catalog
from airflow_provider_milvus_backup.core.drill_plan import DrillOptions
from airflow_provider_milvus_backup.core.errors import BackupDamaged, BackupNotFound, Cancelled, ConfigError, DrillFailed, TargetExists
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.settings import S3Location, Settings
from airflow_provider_milvus_backup.core.store import ObjectStore
from tests.integration import data
from tests.integration.clusters import A_BUCKET, READER, VAULT, Cluster, Lines, everything, listing, location
from tests.integration.conftest import Zoo

ME = Owner("dag/run/drill/-1", 0, 1)
ROOT = "of/drills"
MANY = "zoo_many"


class Drills:
    """Drills on Milvus B, of backups that are elsewhere."""

    def __init__(self, a: Cluster, b: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        self.a, self.b, self.patch = a, b, monkeypatch
        self.log = Lines()
        self.patience = Patience(timeout=280)

    def drill(self, backup_name: str, place: S3Location | None = None, **options: Any) -> dict[str, Any]:
        settings = Settings(self.b.address, self.b.storage, place or self.a.backups)
        return drilling.drill(settings, DrillOptions(backup_name, **options), ME, Reporter(self.log), self.patience, poll_interval=0.5)

    def there(self) -> dict[str, Any]:
        """Everything on both sides that a drill must leave as it was."""
        found = {**everything(self.b), "A": self.a.collections()}
        for bucket, prefix in ((A_BUCKET, "backup/"), (A_BUCKET, "restore-temp-"), (VAULT, "")):
            found[f"A, {bucket}, {prefix}"] = {
                key: item for key, item in listing(self.a.s3, bucket, prefix).items() if not key.endswith("/provider/drill.json")
            }
        return found

    def written(self, name: str, store: ObjectStore | None = None) -> dict[str, Any]:
        store = store or ObjectStore(self.a.backups)
        found = json.loads(store.read(f"{store.location.root_path}/{name}/provider/drill.json"))
        assert isinstance(found, dict)
        return found

    def after_loading(self, action: Callable[[CollectionName], object]) -> None:
        """Let something happen to every collection between loading and looking."""

        def load(ends: Any, targets: Any) -> None:
            finishing_load(ends, targets)
            for target in targets:
                action(target.building)

        finishing_load = finishing.load
        self.patch.setattr(finishing, "load", load)


@pytest.fixture
def drills(a: Cluster, b: Cluster, zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> Drills:
    return Drills(a, b, monkeypatch)


@pytest.fixture(autouse=True)
def _nothing_is_left(drills: Drills) -> Any:
    before = drills.there()
    yield
    assert drills.there() == before


def some_row(zoo: Zoo, name: CollectionName) -> dict[str, Any]:
    return next(iter(next(rows for rows in zoo.rows[name].values() if rows).values()))


def test_every_shape_is_recovered_on_another_cluster_and_thrown_away(drills: Drills, zoo: Zoo) -> None:
    typed, coded = some_row(zoo, data.TYPES.name), some_row(zoo, data.VARCHAR.name)
    counts = {name: data.count(rows) for name, rows in zoo.rows.items()}
    checks = [
        {"collection": MANY, "expression": "id >= 0", "count": counts[data.MANY.name]},
        {"collection": "zoo_db.zoo_types", "expression": 'key != ""', "min_count": 60, "max_count": 60},
        {"collection": "default.zoo_types", "search": {"field": "vector", "vector": typed["vector"], "expect_ids": [typed["id"]]}},
        {
            "collection": "zoo_varchar",
            "search": {
                "field": "vector",
                "vector": list(coded["vector"][0] if isinstance(coded["vector"], list) else coded["vector"]),
                "limit": 3,
                "filter": f'key == "{coded["key"]}"',
                "expect_ids": [coded["key"]],
                "min_hits": 1,
                "params": {"nprobe": 16},
            },
        },
    ]
    found = drills.drill("zoo", checks=checks)
    assert found["ok"] is True
    recovered = {one["name"]: one["rows"] for one in found["collections"]}
    assert recovered == {str(name): count for name, count in counts.items()}
    # Schema and indexes of each, the rows of all that can be loaded, and what was asked for.
    assert found["checks"] == 9 * 2 + 8 + 4
    assert list(found["phases"]) == ["plan", "create", "stage", "import", "load", "check"]
    assert found["seconds"] == pytest.approx(sum(found["phases"].values()), abs=0.01)
    assert all(seconds > 0 for seconds in found["phases"].values())
    assert any("zoo_bare is not loaded" in line for line in drills.log.lines)
    written = drills.written("zoo")
    (entry,) = read_catalog(ObjectStore(drills.a.backups), "zoo").entries
    assert entry.drilled == {"time": written["time"], "ok": True, "seconds": written["seconds"], "collections": None}
    assert (written["task"], written["server_version"], written["failed"]) == (ME.identity, found["server_version"], [])


def test_everything_that_is_not_as_expected_is_named_and_written_down(drills: Drills) -> None:
    checks = [
        {"collection": MANY, "expression": "id >= 0", "count": 1},
        {"collection": MANY, "expression": "id < 0", "min_count": 2},
        {"collection": MANY, "expression": "no such thing", "count": 0},
        {"collection": MANY, "search": {"field": "vector", "vector": [1.0, 2, 3, 4], "limit": 2, "expect_ids": [999_999]}},
        {"collection": MANY, "search": {"field": "vector", "vector": [1.0, 2, 3, 4], "filter": "id == -5", "min_hits": 1}},
        {"collection": MANY, "expression": "id < 0", "max_count": 0},
    ]
    with pytest.raises(DrillFailed) as raised:
        drills.drill("zoo", collections=MANY, database="drills", checks=checks, max_seconds=0.5)
    said = str(raised.value)
    assert "default.zoo_many: count of id >= 0: expected 1, found" in said
    assert "count of id < 0: expected at least 2, found 0" in said
    assert "count of no such thing: expected 0, found an error: " in said
    assert "search in vector: expected ids 999999, found 2 hits: " in said
    assert "search in vector where id == -5: expected at least 1 hits, found 0 hits: none" in said
    assert "more than the 0.5 s of max_seconds" in said
    written = drills.written("zoo")
    assert (written["ok"], len(written["failed"]), written["checks"], written["max_seconds"]) == (False, 5, 9, 0.5)
    assert written["seconds"] > 0.5


def test_rows_indexes_and_partitions_that_are_not_those_of_the_backup_are_found(drills: Drills) -> None:
    def spoil(building: CollectionName) -> None:
        drills.b.client().delete(building.collection, ids=[1, 2, 3])
        drills.b.client().create_partition(building.collection, "stranger")
        drills.b.server.create_index(building, data.index("text", "Trie", name="of_nobody"))

    drills.after_loading(spoil)
    with pytest.raises(DrillFailed) as raised:
        drills.drill("zoo", collections=MANY)
    said = str(raised.value)
    assert "default.zoo_many: schema: expected that of the backup, found partition 'stranger' is not in the backup" in said
    assert "indexes: expected that of the backup, found index 'of_nobody' of field 'text' is not in the backup" in said
    assert "rows: expected" in said


def test_a_drill_that_is_killed_throws_away_what_it_has_made(drills: Drills) -> None:
    drills.after_loading(lambda building: drills.patience.stop.set())
    before = listing(drills.a.s3, A_BUCKET, "backup/zoo/provider/drill.json")
    with pytest.raises(Cancelled):
        drills.drill("zoo", collections=MANY, database="drills")
    assert listing(drills.a.s3, A_BUCKET, "backup/zoo/provider/drill.json") == before, "a drill that was killed has found out nothing"


def test_a_collection_that_only_looks_like_one_of_a_drill_is_left_alone(drills: Drills) -> None:
    theirs = drills.b.create(data.docs("zoo_many_drill"), range(5))
    inside = drills.b.contents(theirs.name)
    with pytest.raises(TargetExists, match=r"default.zoo_many_drill already exists.*leaves alone what it has not made: choose another"):
        drills.drill("zoo", collections=MANY)
    assert drills.b.contents(theirs.name) == inside
    drills.b.drop(theirs.name)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"checks": [{"collection": "zoo_nany", "expression": "id > 0", "count": 1}]}, ConfigError, r"checks\[0\]: .*mean .*zoo_many"),
        ({"checks": [{"collection": MANY, "expresion": "id > 0"}]}, ConfigError, r"checks\[0\] has the unknown key 'expresion'"),
        ({"collections": "zoo_empty", "checks": [{"collection": MANY, "expression": "id > 0", "count": 1}]}, ConfigError, "is drilled"),
        ({"suffix": ""}, ConfigError, "suffix '': a drill needs one"),
        ({"backup_name": "random:1h", "name_pattern": "no_such_*"}, BackupNotFound, r"no backups at all, in .* \(among those that name_"),
        ({"backup_name": "zoe"}, BackupNotFound, r"there is no backup 'zoe'; there .*zoo \(complete"),
    ],
)
def test_what_cannot_be_drilled_is_refused_before_anything_is_restored(
    drills: Drills, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        drills.drill(**{"backup_name": "zoo", **options})


def test_a_backup_that_lost_an_object_fails_the_drill_and_the_catalog_shows_it(drills: Drills, zoo: Zoo, head: dict[str, Any]) -> None:
    source, store = ObjectStore(drills.a.backups), ObjectStore(location(drills.a.s3, VAULT, ROOT))
    keys = sorted(listing(drills.a.s3, A_BUCKET, "backup/head/"), key=lambda key: (key.endswith("backup_meta.json"), key))
    lost = next(key for key in keys if "/insert_log/" in key)
    for key in keys:
        if key != lost:
            store.write(f"{ROOT}/{key.removeprefix('backup/')}", source.read(key))
    try:
        with pytest.raises(BackupDamaged, match="zoo_many cannot be restored: 1 object of this backup is missing"):
            drills.drill("latest", store.location)
        (entry,) = read_catalog(store).entries
        assert (entry.drilled or {})["ok"] is False
        assert "1 object of this backup is missing" in drills.written("head", store)["error"]
    finally:
        store.delete([item.key for item in store.objects(f"{ROOT}/")])


def test_a_backup_that_may_only_be_read_is_drilled_and_the_log_says_what_is_not_written(drills: Drills, zoo: Zoo) -> None:
    place = replace(location(drills.a.s3, A_BUCKET, "backup", READER))
    before = drills.written("zoo")
    found = drills.drill("zoo", place, collections=str(data.DELETED.name), suffix="_read")
    assert (found["ok"], found["rows"]) == (True, 0)
    assert drills.written("zoo") == before
    assert any("the catalog does not show this drill" in line for line in drills.log.lines)


def test_a_sample_holds_what_checks_are_about(drills: Drills) -> None:
    check = {"collection": str(data.EMPTY.name), "expression": "id >= 0", "count": 0}
    found = drills.drill("latest", name_pattern="zoo", sample=2, seed="of this run", load="never", checks=[check])
    names = [one["name"] for one in found["collections"]]
    assert len(names) == 2
    assert str(data.EMPTY.name) in names
