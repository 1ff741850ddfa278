"""Every golden backup is read value by value, from whichever of its files there are, and names exactly the objects that lie there."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from airflow_provider_milvus_backup.core import layout
from airflow_provider_milvus_backup.core.errors import BackupDamaged, BackupNotFound, NotInStorage
from airflow_provider_milvus_backup.core.job_planning import JobRules, Places, folded_copies, is_folded, plan_jobs
from airflow_provider_milvus_backup.core.meta import Backup, Collection, Database, Index, Partition, SnapshotBackup
from airflow_provider_milvus_backup.core.meta_reader import from_files
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.reader import read_backup
from airflow_provider_milvus_backup.core.restore_plan import check_objects, expected_objects
from airflow_provider_milvus_backup.core.restore_state import Job
from airflow_provider_milvus_backup.core.schema import to_proto
from airflow_provider_milvus_backup.core.snapshot_plan import check_bundles
from airflow_provider_milvus_backup.core.store import ObjectStore
from tests.golden_backups.expected import EXPECTED, GOLDEN, LOST_L0
from tests.golden_backups.shapes import DOCS, EVENTS, PRICES, B
from tests.official_backups import go_json

TREES = sorted(EXPECTED)
SNAPSHOT = "head-snapshot"
FULL = "full_meta.json"
#: Its level files keep everything a collection has, L0 of all partitions included.
NESTED = {"0.4.26", "0.5.0", "0.5.4", "0.5.10"}


def meta_files(tree: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (GOLDEN / tree / "meta").iterdir()}


def objects(tree: str, below: str = "binlogs") -> dict[str, int]:
    """Size by key, as if the tree were the root of a bucket."""
    root = GOLDEN / tree
    return {path.relative_to(root).as_posix(): path.stat().st_size for path in (root / below).rglob("*") if path.is_file()}


def document(tree: str, file: str = FULL) -> dict[str, Any]:
    return dict(json.loads(meta_files(tree)[file]))


def test_every_tree_is_described() -> None:
    assert sorted(path.parent.name for path in GOLDEN.glob("*/meta")) == sorted([*TREES, SNAPSHOT])


# ---- reading -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree", TREES)
def test_a_golden_backup_is_read_value_by_value(tree: str) -> None:
    assert from_files(meta_files(tree)) == EXPECTED[tree]


@dataclass
class Folder:
    """What reading needs of an ObjectStore: one tree, as ``somewhere/<its name>``."""

    tree: str
    root_path: str = "somewhere"

    @property
    def location(self) -> Folder:
        return self

    def read(self, key: str, limit: int) -> bytes:
        path = GOLDEN / self.tree / key.removeprefix(f"somewhere/{EXPECTED[self.tree].name}/")
        if not path.is_file():
            raise NotInStorage(f"no {key}")
        assert path.stat().st_size <= limit
        return path.read_bytes()

    def directories(self, prefix: str) -> list[str]:
        return [EXPECTED[self.tree].name] if prefix == "somewhere/" else []


@pytest.mark.parametrize("tree", TREES)
def test_a_golden_backup_is_found_by_its_name_in_a_store(tree: str) -> None:
    store = cast("ObjectStore", Folder(tree))
    assert read_backup(store, EXPECTED[tree].name) == EXPECTED[tree]
    with pytest.raises(BackupNotFound, match=f"'another'.*{EXPECTED[tree].name}"):
        read_backup(store, "another")


def without_full_meta(tree: str, whole: Backup) -> Backup:
    """What is left when only the level files are: nothing of the cluster, and from 0.5.13 on no L0 segments of all partitions."""
    kept = [one if tree in NESTED else replace(one, l0_segments=[]) for one in whole.collections]
    warnings = [] if any(one.l0_segments for one in kept) else [LOST_L0]
    return replace(whole, databases=[], rbac=None, flush_all=None, collections=kept, warnings=warnings)


@pytest.mark.parametrize("tree", TREES)
def test_the_level_files_alone_lose_no_more_than_they_never_held(tree: str) -> None:
    files = meta_files(tree)
    files.pop(FULL, None)
    assert from_files(files) == without_full_meta(tree, EXPECTED[tree])


@pytest.mark.parametrize("tree", TREES)
def test_every_object_of_a_tree_is_named_once_and_lies_where_the_groups_say(tree: str) -> None:
    named = [item for collection in EXPECTED[tree].collections for item in expected_objects(collection, "binlogs/")]
    left = {f"binlogs/delta_log/{DOCS}/-1/{B + 231}/{B + 2310}": 20} if tree == "head-levels-only" else {}
    assert len(dict(named)) == len(named)
    assert dict(named) | left == objects(tree)
    for collection in EXPECTED[tree].collections:
        there = {key: size for key, size in objects(tree).items() if f"/{collection.collection_id}/" in key}
        assert check_objects(collection, "binlogs/", there) == left.keys()


def test_shared_groups_are_directories_that_hold_several_segments() -> None:
    keys = [key.split("/")[3:6] for key in objects("0.4.0-groups") if "/insert_log/" in key]
    assert {tuple(int(part) - (B if int(part) > B else 0) for part in key) for key in keys} == {
        (101, 1, 201),
        (101, 1, 202),
        (101, 2, 203),
        (102, 1, 211),
    }


def test_sizes_are_those_of_the_objects_even_where_the_meta_leaves_l0_out() -> None:
    prices = EXPECTED["0.4.26"].collections[1]
    assert document("0.4.26")["collection_backups"][1]["size"] == prices.size - 20 == 111
    assert prices.partitions[0].size == 111
    assert document("head-l0")["size"] == EXPECTED["head-l0"].size == sum(objects("head-l0").values()) == 146


# ---- restore plans -------------------------------------------------------------------------------------------------------------

HUGE = 2**40
#: One prefix for all, one segment per job, many per job; the last two import L0 segments.
RULES = {
    "2.3": JobRules(0, HUGE),
    "2.4": JobRules(1, HUGE, l0_import=True),
    "2.6": JobRules(256, HUGE, l0_import=True, l0_per_job=256),
    "3.0": JobRules(256, HUGE),
}


def plan(tree: str, collection: Collection, rules: JobRules) -> list[Job]:
    there = {key: size for key, size in objects(tree).items() if f"/{collection.collection_id}/" in key}
    folded = "folded/" if is_folded(collection, rules, append=False) else None
    return plan_jobs(collection, Places("binlogs/", None, folded), rules, check_objects(collection, "binlogs/", there))


def picked(jobs: list[Job], keys: Any) -> list[str]:
    """What Milvus lists for the jobs: all keys that begin with one of a job's prefixes."""
    prefixes = [prefix for job in jobs for file in job.files for prefix in file if prefix]
    return sorted(key for prefix in prefixes for key in keys if key.startswith(prefix))


@pytest.mark.parametrize("version", RULES)
@pytest.mark.parametrize("tree", TREES)
def test_the_jobs_pick_every_object_of_a_collection_exactly_once(tree: str, version: str) -> None:
    for collection in EXPECTED[tree].collections:
        jobs = plan(tree, collection, RULES[version])
        there = {key for key, _ in expected_objects(collection, "binlogs/")}
        if is_folded(collection, RULES[version], append=False):
            copies = list(folded_copies(collection, "binlogs/", "folded/"))
            there = {key for key in there if layout.INSERT in key} | {copy.destination for copy in copies}
            assert {copy.source for copy in copies} <= objects(tree).keys()
            assert len({copy.destination for copy in copies}) == len(copies)
        assert picked(jobs, there | objects(tree).keys()) == sorted(there)
        assert sum(job.rows for job in jobs) == sum(segment.rows for segment in collection.segments() if not segment.is_l0)


def files(tree: str, version: str, collection: int = 0) -> list[tuple[str, list[list[str]]]]:
    """The partition and the import files of every job, ids without what all have in common."""
    jobs = plan(tree, EXPECTED[tree].collections[collection], RULES[version])
    short = [[[re.sub(r"44610800000000(0*)", "", prefix) for prefix in file] for file in job.files] for job in jobs]
    return [(job.partition, file) for job, file in zip(jobs, short, strict=True)]


def test_a_partition_without_groups_is_imported_by_its_own_directory() -> None:
    expected = [
        ("_default", [["binlogs/insert_log/100/101/", "binlogs/delta_log/100/101/"]]),
        ("second", [["binlogs/insert_log/100/102/"]]),
    ]
    assert files("0.4.0", "2.6") == files("0.4.0", "2.4") == expected


def test_a_group_that_several_segments_share_is_imported_once() -> None:
    ones = ["binlogs/insert_log/100/101/1/", "binlogs/delta_log/100/101/1/"]
    assert files("0.4.0-groups", "2.6") == [
        ("_default", [ones, ["binlogs/insert_log/100/101/2/"]]),
        ("second", [["binlogs/insert_log/100/102/1/"]]),
    ]
    # Jobs of one group each, the largest first.
    assert sorted(files("0.4.0-groups", "2.4")) == [
        ("_default", [ones]),
        ("_default", [["binlogs/insert_log/100/101/2/"]]),
        ("second", [["binlogs/insert_log/100/102/1/"]]),
    ]


def test_l0_segments_are_imported_after_the_data_of_their_partition_or_of_all() -> None:
    assert files("head-l0", "2.6") == [
        ("_default", [["binlogs/insert_log/900/901/911/"]]),
        ("_default", [["binlogs/delta_log/900/901/912/"]]),
        ("only_deletes", [["binlogs/delta_log/900/902/921/"]]),
        ("", [["binlogs/delta_log/900/-1/931/"], ["binlogs/delta_log/900/-1/932/"]]),
    ]
    assert [len(file) for _, file in files("head-l0", "2.4")] == [1, 1, 1, 1, 1]


def test_l0_segments_are_folded_into_the_segments_of_their_partition() -> None:
    assert files("head-l0", "3.0") == [("_default", [["binlogs/insert_log/900/901/911/", "folded/delta_log/900/901/911/"]])]
    for tree, place, logs in [
        ("head-l0", (B + 900, B + 901, B + 911), {B + 3000, B + 3001, B + 3100, B + 3101}),
        ("0.4.26", (PRICES, B + 501, B + 511), {B + 2600, B + 2700}),
        ("0.5.10", (EVENTS, B + 701, B + 711), {B + 2900}),
    ]:
        [collection] = [one for one in EXPECTED[tree].collections if one.collection_id == place[0]]
        collection_id, partition, segment = place
        below = f"folded/delta_log/{collection_id}/{partition}/{segment}/{segment}/"
        assert {copy.destination for copy in folded_copies(collection, "binlogs/", "folded/")} == {f"{below}{log}" for log in logs}


def test_a_job_says_the_storage_version_of_its_segments() -> None:
    docs, wide = ([job.storage_version for job in plan("head", one, RULES["2.6"])] for one in EXPECTED["head"].collections)
    assert (docs, wide) == ([0, 0], [2])


# ---- schemas as Milvus gets them -----------------------------------------------------------------------------------------------


def schema_of(tree: str, collection: int = 0) -> Any:
    found: Collection = from_files(meta_files(tree)).collections[collection]
    return to_proto(found.schema, "target")


@pytest.mark.parametrize("tree", ["0.4.26", "0.5.4", "0.5.10", "head"])
def test_a_default_value_comes_through_in_either_spelling(tree: str) -> None:
    id_, text, vector = schema_of(tree).fields
    assert text.default_value.string_data == "n/a"
    assert [field.HasField("default_value") for field in (id_, text, vector)] == [False, True, False]


def test_a_default_value_that_json_destroyed_is_left_out_and_its_neighbours_are_not() -> None:
    fields = {field.name: field for field in schema_of("0.4.26", 1).fields}
    assert not fields["price"].HasField("default_value")
    assert fields["count"].default_value.long_data == 7
    assert fields["note"].nullable


def test_functions_and_struct_arrays_come_through() -> None:
    passages = schema_of("0.5.0", 1)
    [bm25] = passages.functions
    assert (bm25.name, bm25.type, list(bm25.input_field_names), list(bm25.output_field_names)) == ("bm25", 1, ["body"], ["sparse"])
    assert [field.name for field in passages.fields if field.is_function_output] == ["sparse"]
    [chunks] = schema_of("head-structs").struct_array_fields
    assert [(field.name, field.data_type, field.element_type) for field in chunks.fields] == [("words", 22, 21), ("embedding", 106, 101)]


def test_what_the_server_manages_among_the_properties_is_not_sent_back() -> None:
    assert [(pair.key, pair.value) for pair in schema_of("head").properties] == [("collection.ttl.seconds", "864000")]


# ---- the trees themselves ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/meta/*.json")), ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_a_meta_file_is_spelled_as_go_spells_it(path: Path) -> None:
    data = path.read_bytes()
    assert go_json(json.loads(data)).replace("\ufffd".encode(), rb"\ufffd") == data


def test_the_trees_hold_what_readers_must_pass_over() -> None:
    old = {tree: document(tree) for tree in ("0.4.0", "0.4.26", "0.5.0", "0.5.4", "0.5.10", "head")}
    assert {tree: found["state_code"] for tree, found in old.items()} == {
        "0.4.0": 2, "0.4.26": 2, "0.5.0": 2, "0.5.4": 1, "0.5.10": 0, "head": 0,
    }  # fmt: skip
    assert {tree for tree, found in old.items() if "progress" in found} == {"0.4.26", "0.5.0", "0.5.4"}
    assert {tree for tree, found in old.items() if "rbac_meta" in found} == {"0.4.26", "0.5.4"}
    assert {tree for tree in old if "channel_cp_meta.json" in meta_files(tree)} == {"0.4.26", "0.5.0", "0.5.4"}
    assert old["0.5.4"]["rpc_channel_info"] == {"name": "by-dev-replicate-msg", "position": "CAEQAhgDIAQ="}
    assert old["0.5.10"]["collection_backups"][0]["replicas"][0]["resource_group_name"] == "__default_resource_group"
    assert old["head"]["flush_all_msgs_base64"].keys() == {"by-dev-rootcoord-dml_0", "by-dev-rootcoord-dml_1"}


# ---- the snapshot format -------------------------------------------------------------------------------------------------------


def frozen() -> Backup:
    path = f"bundle/snapshots/{B + 1100}/metadata/{B + 2000}.json"
    collection = Collection(
        collection_id=B + 1100,
        name=CollectionName("default", "frozen"),
        schema={
            "name": "frozen",
            "fields": [
                {"fieldID": 100, "name": "id", "is_primary_key": True, "data_type": 5},
                {"fieldID": 101, "name": "vector", "data_type": 101, "type_params": [{"key": "dim", "value": "4"}]},
            ],
            "properties": [],
        },
        shards=1,
        consistency_level=2,
        partitions=[Partition(B + 1101, "_default", [], "NotLoad")],
        indexes=[
            Index(
                "vector", "vector", "HNSW", {"M": "8", "efConstruction": "64", "index_type": "HNSW", "metric_type": "L2"}, index_id=B + 1151
            )
        ],
        database_id=1,
        created_timestamp=455_012_000_000_000_004,
        virtual_channels=[f"by-dev-rootcoord-dml_0_{B + 1100}v0"],
        physical_channels=["by-dev-rootcoord-dml_0"],
        backup_timestamp=455_012_345_678_901_249,
        snapshot=SnapshotBackup(path, 3, 144),
    )
    backup_id = "7c1f2f0e-6f5f-4a55-9a0d-0d6f6f7f2a11"
    return Backup(backup_id, "golden_head_snapshot", "v3.0.1", [collection], [Database("default", 1)], format="snapshot")


def test_the_snapshot_format_is_read_value_by_value_with_and_without_full_meta() -> None:
    files = meta_files(SNAPSHOT)
    assert from_files(files) == frozen()
    assert (frozen().size, frozen().collections[0].rows) == (144, 0)
    del files[FULL]
    assert from_files(files) == replace(frozen(), databases=[])
    del files["collection_meta.json"]
    with pytest.raises(BackupDamaged, match=r"neither full_meta\.json nor collection_meta\.json"):
        from_files(files)


def test_what_lies_in_a_bundle_is_what_the_meta_says() -> None:
    backup, there = frozen(), objects(SNAPSHOT, "bundle")
    check_bundles(backup, backup.collections, there)
    for key, size in there.items():
        rest = {other: bytes_ for other, bytes_ in there.items() if other != key}
        with pytest.raises(BackupDamaged, match=r"snapshot of default\.frozen"):
            check_bundles(backup, backup.collections, rest)
        with pytest.raises(BackupDamaged, match="incomplete: 3 files of 143 bytes"):
            check_bundles(backup, backup.collections, {**there, key: size - 1})


def test_a_snapshot_backup_leads_to_its_bundle_and_has_no_segments() -> None:
    assert sorted(meta_files(SNAPSHOT)) == ["backup_meta.json", "collection_meta.json", FULL]
    summary, whole = document(SNAPSHOT, "backup_meta.json"), document(SNAPSHOT)
    assert (summary["format"], whole["format"], whole["milvus_version"]) == ("snapshot", "snapshot", "v3.0.1")
    [kept] = whole["collection_backups"]
    assert document(SNAPSHOT, "collection_meta.json") == {"infos": [kept]}
    bundle = objects(SNAPSHOT, "bundle")
    assert objects(SNAPSHOT) == {}
    assert kept["snapshot_backup"] == {
        "metadata_path": f"bundle/snapshots/{B + 1100}/metadata/{B + 2000}.json",
        "total_files": len(bundle),
        "total_bytes": sum(bundle.values()),
    }
    assert kept["snapshot_backup"]["metadata_path"] in bundle
    assert (kept["size"], whole["size"]) == (sum(bundle.values()), 0)
    assert (kept["backup_timestamp"], "backup_physical_timestamp" in kept) == (455_012_345_678_901_249, False)
    assert kept["partition_backups"] == [
        {"partition_id": B + 1101, "partition_name": "_default", "collection_id": B + 1100, "size": 0, "load_state": "NotLoad"}
    ]
