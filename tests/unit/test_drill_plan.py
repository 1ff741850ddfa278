"""What a drill restores, loads and calls it: decided before anything is changed."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core import meta
from airflow_provider_milvus_backup.core.drill_plan import DrillOptions, DrillPlan, plan, sample
from airflow_provider_milvus_backup.core.errors import ConfigError
from airflow_provider_milvus_backup.core.names import CollectionName, targets
from airflow_provider_milvus_backup.core.restore_plan import FAIL, NEVER
from tests.unit.drilled_backups import backup, collection

PARTS = [meta.Partition(8, "_default", [], "Loaded"), meta.Partition(9, "old", [], "NotLoad")]
BACKUP = backup(
    collection(),
    collection("partly", partitions=PARTS),
    collection("released", load_state="NotLoad"),
    collection("bare", indexes=[]),
    collection("books", "library"),
)
CHECK = {"collection": "books", "expression": "year > 0", "min_count": 1}


def planned(**options: Any) -> DrillPlan:
    given = DrillOptions(**options)
    given.check()
    return plan(given, BACKUP, "default", given.rng())


def names(plan: DrillPlan) -> list[str]:
    return [str(name) for name in plan.collections]


def restored_as(plan: DrillPlan) -> list[str]:
    return [str(name) for name in targets(list(plan.collections), plan.restore.suffix, plan.restore.rename).values()]


def test_everything_is_restored_beside_the_originals_and_nothing_else_is_touched() -> None:
    found = planned()
    assert names(found) == [str(one.name) for one in BACKUP.collections]
    assert restored_as(found)[0] == "default.books_drill"
    options = found.restore
    assert (options.if_exists, options.restore_aliases, options.restore_rbac, options.load) == (FAIL, False, False, NEVER)


def test_what_a_smaller_or_older_milvus_of_drills_needs_is_said_to_the_restore() -> None:
    options = planned().restore
    assert (options.max_shards, options.allow_downgrade) == (None, False)
    options = planned(max_shards=2, allow_downgrade=True).restore
    assert (options.max_shards, options.allow_downgrade) == (2, True)


def test_another_database_takes_collections_of_all_with_the_suffix() -> None:
    found = planned(database="drills", suffix="_x", collections=["default.partly", "library.books"])
    assert restored_as(found) == ["drills.partly_x", "drills.books_x"]


def test_collections_of_one_name_cannot_go_into_one_database() -> None:
    found = planned(database="drills")
    with pytest.raises(ConfigError, match="would both be restored as"):
        restored_as(found)


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        ("always", {"books": None, "partly": None, "released": None, "bare": []}),
        ("as_backed_up", {"books": None, "partly": ["_default"], "released": [], "bare": []}),
        ("never", {"books": [], "partly": [], "released": [], "bare": []}),
    ],
)
def test_what_is_loaded(load: str, expected: dict[str, Any]) -> None:
    found = planned(load=load, collections="default.*")
    assert {name.collection: partitions for name, partitions in found.load.items()} == expected
    assert len(found.unloaded) == (load == "always")


def test_what_checks_are_about_is_loaded_and_in_the_sample_in_any_case() -> None:
    for seed in range(20):
        found = planned(load="never", sample=1, seed=seed, checks=[CHECK])
        assert names(found) == ["default.books"]
        assert found.load == {CollectionName("default", "books"): None}
    with pytest.raises(ConfigError, match=r"default.bare cannot be loaded, because field 'vector' has no index in the backup"):
        planned(checks=[{**CHECK, "collection": "bare"}])


NAMES = [CollectionName("default", f"c{number}") for number in range(12)]


@given(count=st.integers(1, 20), always=st.lists(st.sampled_from(NAMES), unique=True, max_size=6), seed=st.integers())
def test_a_sample_has_so_many_in_their_order_with_those_that_are_always_in_it(count: int, always: list[CollectionName], seed: int) -> None:
    found = sample(NAMES, count, always, random.Random(seed))
    assert len(found) == min(len(NAMES), max(count, len(always)))
    assert set(always) <= set(found)
    assert found == [name for name in NAMES if name in found]


def test_every_collection_comes_up_in_samples_and_a_seed_always_gives_the_same() -> None:
    drawn = [names(planned(sample=1, seed=f"run {run}")) for run in range(200)]
    assert {name for (name,) in drawn} == {str(one.name) for one in BACKUP.collections}
    assert drawn == [names(planned(sample=1, seed=f"run {run}")) for run in range(200)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"backup_name": "a-b"}, "backup name 'a-b' is not valid"),
        ({"backup_name": "random"}, "does not say of which time; write `random:30d`"),
        ({"backup_name": "nightly", "name_pattern": "n*"}, "name_pattern 'n.*' says among which backups"),
        ({"name_pattern": 7}, "name_pattern 7 is not a text"),
        ({"seed": ["a"]}, r"seed \['a'\] is neither a text nor a number"),
        ({"collections": ["a b"]}, "is not `coll`, `db.coll` or `db.*`"),
        ({"collections": "missing"}, "default.missing does not exist"),
        ({"sample": 0}, "sample 0 is not a number of collections; give 1 or more"),
        ({"sample": "3"}, "sample '3' is not a number"),
        ({"sample": True}, "sample True is not a number"),
        ({"suffix": ""}, "suffix '': a drill needs one"),
        ({"suffix": None}, "suffix None: a drill needs one"),
        ({"suffix": "-x"}, "suffix '-x' is not valid"),
        ({"database": "a b"}, "is not `coll`, `db.coll` or `db.*`"),
        ({"database": ""}, "database '' is not the name of a database; leave it out"),
        ({"max_shards": 0}, "max_shards 0 is not a number of shards; give 1 or more"),
        ({"max_shards": "2"}, "max_shards '2' is not a number of shards"),
        ({"max_shards": True}, "max_shards True is not a number of shards"),
        ({"allow_downgrade": "False"}, "allow_downgrade 'False' is neither True nor False"),
        ({"allow_downgrade": None}, "allow_downgrade None is neither True nor False"),
        ({"load": "maybe"}, "load 'maybe' is not one of as_backed_up, always, never"),
        ({"max_seconds": 0}, "max_seconds 0 is not a number of seconds above 0"),
        ({"max_seconds": float("nan")}, "max_seconds nan is not"),
        ({"max_seconds": "60"}, "max_seconds '60' is not a number of seconds"),
        ({"max_seconds": True}, "max_seconds True is not a number of seconds"),
        ({"checks": [{**CHECK, "collection": "library.books"}], "collections": "books"}, "a check is about a collection that is drilled"),
    ],
)
def test_what_cannot_be_drilled_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        planned(**options)
