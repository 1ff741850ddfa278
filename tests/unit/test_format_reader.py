"""The independent reader accepts what HEAD writes, rejects everything else; old generations look as they did."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.format_reader import CheckedBackup, FormatError, check_backup
from tests.official_backups import GENERATIONS, Synthetic, go_json, go_lossy, rewrite, synthetic

Json = dict[str, Any]
META = "backup/demo/meta/"
SEGMENT = "$.collection_backups[0].partition_backups[0].segment_backups[0]"
GONE = object()


def read_back(backup: Synthetic, files: dict[str, bytes], objects: dict[str, int]) -> CheckedBackup:
    sizes = {**objects, **{key: len(data) for key, data in files.items()}}
    return check_backup(sizes, files.__getitem__, backup.root, backup.name, milvus_root=backup.milvus_root)


def collection(meta: Json) -> Any:
    return meta["collection_backups"][0]


def l0(meta: Json) -> Any:
    return collection(meta)["l0_segments"][0]


def partition(meta: Json) -> Any:
    return collection(meta)["partition_backups"][0]


def segment(meta: Json) -> Any:
    return partition(meta)["segment_backups"][0]


def pk(meta: Json) -> Any:
    return collection(meta)["schema"]["fields"][0]


def vec(meta: Json) -> Any:
    return collection(meta)["schema"]["fields"][1]


def log(meta: Json) -> Any:
    return segment(meta)["binlogs"][0]["binlogs"][0]


def grow(meta: Json, size: int) -> None:
    for owner in (segment(meta), partition(meta), collection(meta), meta):
        owner["size"] += size


def log_key(backup: Synthetic, directory: str) -> str:
    return next(key for key in backup.objects if f"/{directory}/" in key)


# --- accepts ---------------------------------------------------------------------------------------------------------


def test_the_example_of_the_sheet_is_accepted_and_returned_as_a_tree() -> None:
    backup = synthetic()
    checked = read_back(backup, backup.files(), dict(backup.objects))
    docs = checked.collections["default", "docs"]
    assert (checked.size, docs.rows, docs.size) == (6840, 100, 6840)
    assert {name: raw["fieldID"] for name, raw in docs.fields.items()} == {"pk": 100, "vec": 101}
    data = docs.partitions["_default"].segments[455000000000000201]
    assert (data.rows, data.size, data.is_l0, data.delta_logs) == (100, 6200, False, (455000000000001206,))
    assert data.insert_logs[101] == (455000000000001205,)
    deletes = docs.l0_segments[455000000000000203]
    assert (deletes.rows, deletes.size, deletes.is_l0) == (3, 640, True)


@pytest.mark.parametrize("root", ["backup", "", "/data", "a/b/"])
@pytest.mark.parametrize("milvus_root", ["files", "", "a/b"])
def test_every_root_is_joined_as_go_joins_it(root: str, milvus_root: str) -> None:
    backup = synthetic(root=root, milvus_root=milvus_root)
    assert read_back(backup, backup.files(), dict(backup.objects)).size == 6840


def test_many_collections_partitions_segments_and_partition_level_l0_are_accepted() -> None:
    backup = synthetic(collections=3, partitions=2, segments=4, l0=True, partition_l0=True)
    checked = read_back(backup, backup.files(), dict(backup.objects))
    assert len(checked.collections) == 3
    for found in checked.collections.values():
        assert [len(p.segments) for p in found.partitions.values()] == [5, 5]
        assert (found.rows, len(found.l0_segments)) == (800, 1)
    assert len(backup.objects) == 3 * (2 * (4 * 5 + 1) + 1)


def test_zero_values_may_be_present() -> None:
    backup = synthetic(l0=False)
    collection(backup.full_meta).update(l0_segments=[], aliases=[])
    segment(backup.full_meta)["binlogs"][0]["fieldID"] = 0
    vec(backup.full_meta).update(nullable=False, description="", default_value_base64="")
    assert read_back(backup, backup.files(), dict(backup.objects)).size == 6200


def test_a_list_file_segment_with_one_empty_deltalog_entry_is_accepted() -> None:
    backup = synthetic(l0=False)
    dropped = log_key(backup, "delta_log")
    segment(backup.full_meta).update(deltalogs=[{}])
    grow(backup.full_meta, -512)
    objects = {key: size for key, size in backup.objects.items() if key != dropped}
    assert read_back(backup, backup.files(), objects).size == 5688


def test_the_documented_fragments_are_accepted() -> None:
    backup = synthetic()
    schema = collection(backup.full_meta)["schema"]
    params = [{"key": "max_length", "value": "512"}]
    text = {"fieldID": 102, "name": "text", "data_type": 21, "type_params": params, "nullable": True}
    schema["fields"] += [text | {"default_value_base64": "MgNuL2E="}]
    schema["fields"] += [{"fieldID": 103, "name": "sparse", "data_type": 104, "is_function_output": True}]
    names = {"input_field_names": ["text"], "output_field_names": ["sparse"]}
    ids = {"input_field_ids": [102], "output_field_ids": [103]}
    schema["functions"] = [{"name": "bm25", "id": 100, "type": 1, **names, **ids}]
    emb = {"fieldID": 105, "name": "emb", "data_type": 106, "element_type": 101}
    schema["struct_array_fields"] = [{"fieldID": 104, "name": "chunks", "fields": [emb]}]
    grantor = {"user": {"name": "root"}, "privilege": {"name": "Search"}}
    grant = {"role": {"name": "r"}, "object": {"name": "Collection"}, "object_name": "*", "grantor": grantor, "db_name": "default"}
    group = {"group_name": "pg1", "privileges": [{"name": "Query"}]}
    rbac = {"users": [{"user": "bob", "password": "$2a$10$x", "roles": [{"name": "r"}]}], "grants": [grant], "privilege_groups": [group]}
    database = {"db_name": "default", "properties": [{"key": "mmap.enabled", "value": "true"}]}
    backup.full_meta.update({"rbac_meta": rbac, "database_backups": [database]})
    raw = read_back(backup, backup.files(), dict(backup.objects)).raw
    assert (raw["rbac_meta"], raw["database_backups"]) == (rbac, [database])


def test_other_keys_are_accepted_under_provider_only() -> None:
    backup = synthetic()
    objects = dict(backup.objects) | {"backup/demo/provider/manifest.json": 9}
    assert read_back(backup, backup.files(), objects).provider_keys == {"backup/demo/provider/manifest.json"}


# --- rejects: the whole backup is written by HEAD's rules from a broken tree -----------------------------------------


def root(meta: Json) -> Any:
    return meta


TREE: dict[str, tuple[Callable[[Json], Any], Json, str]] = {
    "no unknown key at the root": (root, {"progress": 100}, "$.progress: unknown key"),
    "no unknown key in a field": (pk, {"state": 0}, "fields[0].state: unknown key"),
    "no unknown key in a segment": (segment, {"backuped": True}, "backuped: unknown key"),
    "no unknown key in an L0 segment": (l0, {"statslogs": []}, "l0_segments[0].statslogs: unknown key"),
    "no unknown key in a binlog": (log, {"entries_num": 1}, "entries_num: unknown key"),
    "default_value is never written": (vec, {"default_value": {}}, "default_value: unknown key"),
    "default_value_proto is read-only": (vec, {"default_value_proto": "x"}, "default_value_proto: unknown key"),
    "is_clustering_key is not in the format": (vec, {"is_clustering_key": True}, "is_clustering_key: unknown key"),
    "format is absent": (root, {"format": "binlog"}, "$.format: unknown key"),
    "ints are not quoted": (collection, {"collection_id": "455"}, "collection_id: is a str"),
    "ints are not floats": (partition, {"size": 6200.0}, "size: is a float"),
    "ints are not bools": (collection, {"shards_num": True}, "shards_num: is a bool"),
    "int32 fits": (collection, {"shards_num": 2**31}, "shards_num: 2147483648 is outside"),
    "bools are not ints": (pk, {"is_primary_key": 1}, "is_primary_key: is a int"),
    "lists are not null": (segment, {"deltalogs": None}, "deltalogs: is a NoneType"),
    "param values are strings": (vec, {"type_params": [{"key": "dim", "value": 8}]}, "value: is a int"),
    "state_code is always present": (root, {"state_code": GONE}, "$.state_code: must always"),
    "state_code is 0": (root, {"state_code": 2}, "$.state_code: 2 is outside"),
    "has_index is always present": (collection, {"has_index": GONE}, "has_index: must always"),
    "size is always present": (l0, {"size": GONE}, "size: must always"),
    "log_size is always present": (log, {"log_size": GONE}, "log_size: must always"),
    "log_id is written": (log, {"log_id": GONE}, "log_id: is missing"),
    "log_path ends in log_id": (log, {"log_id": 7}, "log_path: is 'files/insert_log/"),
    "log_path is the source key": (log, {"log_path": "x/insert_log/1/2/3/0/4"}, "binlogs[0].log_path: is 'x"),
    "a listed field has insert files": (
        segment,
        {"binlogs": [{"fieldID": 7}], "size": 512},
        "numbers of binlogs: {7: 0}",
    ),
    "a data segment has insert files": (segment, {"binlogs": [], "size": 512}, "numbers of binlogs: {}"),
    "group_id is written": (segment, {"group_id": GONE}, SEGMENT + ".group_id: is None"),
    "group_id is the segment id": (segment, {"group_id": 1}, SEGMENT + ".group_id: is 1"),
    "partition -1 has no group_id": (l0, {"group_id": 3}, "l0_segments[0].group_id: is 3"),
    "partition -1 is L0": (l0, {"is_l0": GONE}, "l0_segments[0].is_l0: is False"),
    "l0_segments holds partition -1 only": (l0, {"partition_id": 1}, "l0_segments[0].partition_id: is 1"),
    "an L0 segment has no insert files": (segment, {"is_l0": True}, SEGMENT + ".is_l0: is True"),
    "a segment belongs to its collection": (segment, {"collection_id": 1}, SEGMENT + ".collection_id: is 1"),
    "segment size adds up": (segment, {"size": 6199}, SEGMENT + ".size: is 6199, expected 6200"),
    "partition size adds up": (partition, {"size": 6201}, "partition_backups[0].size: is 6201"),
    "collection size includes L0": (collection, {"size": 6200}, "collection_backups[0].size: is 6200"),
    "backup size adds up": (root, {"size": 1}, "$.size: is 1, expected 6840"),
    "properties are in both places": (collection, {"properties": GONE}, "[0].properties: differ"),
    "default values are padded base64": (vec, {"default_value_base64": "CAE"}, "default_value_base64: is not"),
    "default values are a ValueField": (vec, {"default_value_base64": "AAAA"}, "is not a ValueField"),
    "checkpoints are base64": (collection, {"channel_checkpoints": {"c": "n o"}}, "channel_checkpoints.c: is not"),
    "system fields are not in the schema": (vec, {"fieldID": 1}, "schema.fields: a fieldID"),
    "field ids are unique": (vec, {"fieldID": 100}, "schema.fields: a fieldID"),
    "field names are unique": (vec, {"name": "pk"}, "schema.fields: a field name"),
    "there is one primary key": (pk, {"is_primary_key": GONE}, "schema.fields: a field name"),
    "the load state is known": (partition, {"load_state": "Loades"}, "load_state: 'Loades'"),
    "the backup has the name of its directory": (root, {"name": "other"}, "$.name: is 'other'"),
    "collections carry the id of the backup": (collection, {"id": "x"}, "collection_backups[0].id: is 'x'"),
    "a bulk flush has no other timestamps": (root, {"flush_all_msgs_base64": {"c": "AAAA"}}, "has timestamps"),
}


@pytest.mark.parametrize("promise", TREE)
def test_a_backup_is_rejected_unless(promise: str) -> None:
    place, changes, problem = TREE[promise]
    backup = synthetic()
    owner = place(backup.full_meta)
    owner.update(changes)
    for key in [key for key, value in changes.items() if value is GONE]:
        del owner[key]
    with pytest.raises(FormatError) as caught:
        read_back(backup, backup.files(), dict(backup.objects))
    assert problem in str(caught.value)


def test_fields_with_different_numbers_of_binlogs_are_rejected() -> None:
    backup = synthetic()
    key = log_key(backup, "insert_log")
    extra = log(backup.full_meta) | {"log_id": 7, "log_path": log(backup.full_meta)["log_path"][:-18] + "7"}
    segment(backup.full_meta)["binlogs"][0]["binlogs"].append(extra)
    grow(backup.full_meta, 389)
    with pytest.raises(FormatError, match=r"different numbers of binlogs: \{0: 2, 1: 1"):
        read_back(backup, backup.files(), dict(backup.objects) | {key[:-18] + "7": 389})


@pytest.mark.parametrize(("version", "accepted"), [(0, False), (1, False), (2, True)])
def test_a_segment_without_system_fields_must_say_that_it_is_storage_v2(version: int, accepted: bool) -> None:
    backup = synthetic()
    segment(backup.full_meta)["storage_version"] = version
    del segment(backup.full_meta)["binlogs"][1]
    grow(backup.full_meta, -401)
    objects = {key: size for key, size in backup.objects.items() if size != 401}
    if accepted:
        assert read_back(backup, backup.files(), objects).size == 6439
    else:
        with pytest.raises(FormatError, match="storage v1 needs RowID"):
            read_back(backup, backup.files(), objects)


def test_a_segment_listed_twice_is_rejected() -> None:
    backup = synthetic()
    partition(backup.full_meta)["segment_backups"] *= 2
    with pytest.raises(FormatError, match="is listed twice"):
        read_back(backup, backup.files(), dict(backup.objects))


@pytest.mark.parametrize("name", ["1demo", "de-mo", "de mo", "d" * 129, "démo"])
def test_a_name_outside_the_naming_rule_is_rejected(name: str) -> None:
    backup = synthetic(name=name)
    with pytest.raises(FormatError, match="naming rule"):
        read_back(backup, backup.files(), dict(backup.objects))


# --- rejects: one meta file disagrees with the others ----------------------------------------------------------------

LEVELS: dict[str, tuple[str, Callable[[Json, Json], Any], str]] = {
    "a summary of equal values": ("backup", lambda m, f: m.update(size=1), "$.size: 1 differs"),
    "a summary without the tree": ("backup", lambda m, f: m.update(f), "unknown key"),
    "collections": ("collection", lambda m, f: m.clear(), "$.infos: collection_id 455000000000000100"),
    "no l0_segments": ("collection", lambda m, f: m["infos"][0].update(l0_segments=[l0(f)]), "l0_segments: unknown"),
    "no nesting": ("collection", lambda m, f: m["infos"][0].update(collection(f), l0_segments=[]), "unknown key"),
    "nested partitions": ("collection", lambda m, f: m["infos"][0].pop("partition_backups"), "_backups: None differs"),
    "equal schemas": ("collection", lambda m, f: m["infos"][0]["schema"]["fields"].pop(), "schema.fields: "),
    "partitions": ("partition", lambda m, f: m.clear(), "$.infos: partition_id 455000000000000101"),
    "equal partitions": ("partition", lambda m, f: m["infos"][0].update(size=1), "$.infos[0].size: 1 differs"),
    "no nested segments": ("partition", lambda m, f: m["infos"][0].update(partition(f)), "segment_backups: unknown"),
    "segments": ("segment", lambda m, f: m["infos"].clear(), "$.infos: segment_id 455000000000000201"),
    "no segment twice": ("segment", lambda m, f: m["infos"].append(segment(f)), "$.infos[1]: segment_id"),
    "no -1 L0 segment": ("segment", lambda m, f: m["infos"].append(l0(f)), "$.infos[1]: segment_id 455000000000000203"),
}


@pytest.mark.parametrize("promise", LEVELS)
def test_level_files_are_rejected_unless_they_have(promise: str) -> None:
    file, mutate, problem = LEVELS[promise]
    backup = synthetic()
    files = backup.files()
    level = json.loads(files[f"{META}{file}_meta.json"])
    mutate(level, backup.full_meta)
    files[f"{META}{file}_meta.json"] = go_json(level)
    with pytest.raises(FormatError, match=f"^{file}_meta.json: .*{re.escape(problem)}"):
        read_back(backup, files, dict(backup.objects))


@pytest.mark.parametrize("file", ["backup", "collection", "partition", "segment", "full"])
def test_each_of_the_five_meta_files_must_exist(file: str) -> None:
    backup = synthetic()
    files = backup.files()
    del files[f"{META}{file}_meta.json"]
    with pytest.raises(FormatError, match=f"{file}_meta.json: .* does not exist"):
        read_back(backup, files, dict(backup.objects))


BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no trailing newline": (lambda data: data + b"\n", "is not compact"),
    "no space after a comma": (lambda data: data.replace(b",", b", ", 1), "is not compact"),
    "UTF-8": (lambda data: data.replace(b"tiny", b"tin\xff"), "is not UTF-8 JSON"),
    "no lone surrogates": (lambda data: data.replace(b"tiny", b"tin\\ud800"), "is not UTF-8"),
    "JSON to the end": (lambda data: data[:-1], "is not UTF-8 JSON"),
    "no key twice": (lambda data: data.replace(b"{", b'{"size":0,', 1), "duplicate key"),
}


@pytest.mark.parametrize("promise", BYTES)
def test_a_meta_file_is_rejected_unless_it_is_compact_json_with(promise: str) -> None:
    mutate, problem = BYTES[promise]
    backup = synthetic()
    files = backup.files()
    files[META + "full_meta.json"] = mutate(files[META + "full_meta.json"])
    with pytest.raises(FormatError, match=problem):
        read_back(backup, files, dict(backup.objects))


# --- rejects: the objects are not what the meta says -----------------------------------------------------------------


@pytest.mark.parametrize("directory", ["insert_log", "delta_log"])
def test_a_listed_object_must_exist(directory: str) -> None:
    backup = synthetic()
    objects = dict(backup.objects)
    del objects[log_key(backup, directory)]
    with pytest.raises(FormatError, match="does not exist"):
        read_back(backup, backup.files(), objects)


def test_a_listed_object_must_have_its_exact_size() -> None:
    backup = synthetic()
    objects = dict(backup.objects) | {log_key(backup, "delta_log"): 511}
    with pytest.raises(FormatError, match="log_size: is 512, expected 511"):
        read_back(backup, backup.files(), objects)


def test_an_l0_object_of_partition_minus_one_has_no_group_directory() -> None:
    backup = synthetic()
    objects = {key.replace("/-1/", "/-1/455000000000000203/"): size for key, size in backup.objects.items()}
    with pytest.raises(FormatError, match=r"l0_segments\[0\].* does not exist"):
        read_back(backup, backup.files(), objects)


@pytest.mark.parametrize("stray", ["binlogs/insert_log/1/2/3/3/0/4", "meta/channel_cp_meta.json", "notes.txt"])
def test_no_object_may_be_a_stray(stray: str) -> None:
    backup = synthetic()
    with pytest.raises(FormatError, match=f"{stray} is not part of the backup"):
        read_back(backup, backup.files(), dict(backup.objects) | {f"backup/demo/{stray}": 1})


# --- older generations -----------------------------------------------------------------------------------------------

OWN, NESTED, FLAT = "segment id", {"partition_backups", "l0_segments", "segment_backups"}, {"partition_backups"}
# group ids, root state_code, keys of a data segment, of a binlog and of a field with a default, level 2 nesting, L0
OLD: dict[str, tuple[Any, int, str, str, set[str], bool]] = {
    "0.3": ([0, 0, 0], 2, "", "", {"partition_backups", "segment_backups"}, False),
    "0.4.0-small": ([0, 0, 0], 2, "", "", {"partition_backups", "segment_backups"}, False),
    "0.4.0-groups": ([1, 1, 2], 2, "", "", {"partition_backups", "segment_backups"}, False),
    "0.4.13": (OWN, 2, "", "", {"partition_backups", "segment_backups"}, False),
    "0.4.26": (OWN, 2, "", "default_value_proto", NESTED, True),
    "0.5.4": (OWN, 1, "v_channel log_id", "default_value_proto", NESTED, True),
    "0.5.9": (OWN, 2, "v_channel log_id storage_version", "default_value_base64", NESTED, True),
    "0.5.10": (OWN, 0, "v_channel log_id storage_version", "default_value_base64", FLAT, True),
    "head-levels-only": (OWN, 0, "v_channel log_id storage_version", "default_value_base64", FLAT, True),
    "l0compact": (OWN, 0, "v_channel log_id storage_version", "default_value_base64", {"l0_segments"}, True),
}


@pytest.mark.parametrize("generation", GENERATIONS)
def test_an_old_generation_is_written_as_the_sheet_says(generation: str) -> None:
    groups, state, segment_keys, default, nesting, has_l0 = OLD[generation]
    backup = synthetic(segments=3, partition_l0=True)
    segment(backup.full_meta)["storage_version"] = 2
    vec(backup.full_meta)["default_value_base64"] = "JQAAwD8="
    files, objects = rewrite(backup.full_meta, generation, "backup", "old")
    metas = {key[len("backup/old/meta/") :]: json.loads(data) for key, data in files.items()}
    assert ("full_meta.json" in metas) == (generation != "head-levels-only")
    assert ("channel_cp_meta.json" in metas) == (generation in ("0.4.13", "0.4.26", "0.5.4", "0.5.9"))
    assert metas["backup_meta.json"]["state_code"] == state
    assert ("progress" in metas["backup_meta.json"]) == (generation.startswith("0.4") or generation in ("0.5.4", "0.5.9"))
    assert ("database_backups" in metas["backup_meta.json"]) == (generation == "l0compact")
    level_2 = metas["collection_meta.json"]["infos"][0]
    found = {key for owner in (level_2, *level_2.get("partition_backups", [])) for key in owner}
    assert found & NESTED == nesting
    assert [key for key in level_2["schema"]["fields"][1] if key.startswith("default")] == default.split()
    rows = [s for s in metas["segment_meta.json"]["infos"] if not s.get("is_l0")]
    first = rows[0] | rows[0]["binlogs"][0]["binlogs"][0]
    assert first.keys() & {"v_channel", "log_id", "storage_version"} == set(segment_keys.split())
    assert (len(rows), len(metas["segment_meta.json"]["infos"])) == (3, 3 + has_l0)
    wanted = [s["segment_id"] for s in rows] if groups == OWN else groups
    assert [s.get("group_id", 0) for s in rows] == wanted
    for row, group in zip(rows, wanted, strict=True):
        ids = [row["collection_id"], row["partition_id"], *([group] if group else []), row["segment_id"]]
        assert f"backup/old/binlogs/insert_log/{'/'.join(map(str, ids))}/0/{row['segment_id'] + 1001}" in objects
    assert len(set(objects.values())) == len(objects) == len(backup.objects) - (0 if has_l0 else 2)
    assert set(objects.values()) <= backup.objects.keys()


def test_json_is_escaped_and_invalid_utf8_is_lost_as_in_go() -> None:
    assert go_json({"a": "<é&>\u2028"}) == b'{"a":"\\u003c\xc3\xa9\\u0026\\u003e\\u2028"}'
    assert go_lossy(b"\x25\x00\x00\xc0\x3f") == "%\0\0\ufffd?"
    assert go_lossy(b"\xe2\x82n\xc3\xa9") == "\ufffd\ufffdné"
