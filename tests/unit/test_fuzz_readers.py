"""Hostile meta: only the documented errors come out, and what is accepted names no key outside its prefix."""

from __future__ import annotations

import contextlib
import copy
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core import layout
from airflow_provider_milvus_backup.core.errors import BackupDamaged, ConfigError, UnsupportedFormat
from airflow_provider_milvus_backup.core.job_planning import JobRules, Places, plan_jobs
from airflow_provider_milvus_backup.core.meta import Backup, Collection
from airflow_provider_milvus_backup.core.meta_reader import from_files
from airflow_provider_milvus_backup.core.meta_writer import to_files
from airflow_provider_milvus_backup.core.names import CollectionName, targets
from airflow_provider_milvus_backup.core.plan import BackupPlan
from airflow_provider_milvus_backup.core.restore_plan import expected_objects
from airflow_provider_milvus_backup.core.schema import to_proto
from tests.official_backups import GENERATIONS, rewrite, synthetic
from tests.unit.meta_documents import by_file

FUZZ = settings(deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
#: Seconds of processor time that no example needs, however busy the machine is.
LONG = 5.0


@contextlib.contextmanager
def documented(*errors: type[Exception]) -> Iterator[None]:
    """Let the documented errors pass, and no example take long."""
    began = time.process_time()
    with contextlib.suppress(*errors):
        yield
    assert time.process_time() - began < LONG


# ---- mutations -----------------------------------------------------------------------------------------------------------------


def nested(depth: int) -> Any:
    value: Any = {}
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


NUMBERS = [
    0,
    1,
    -1,
    2**31,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
    -(10**30),
    10**400,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
]
PATHS = ["", ".", "..", "../../x", "/", "a/b", "a/../b", "/etc", "x/99999999999999999999", "x/9999999999999999999", "x/007", "x/-1"]
TEXTS = ["a\0b", "\ud800", "a\udfff", "\U0001f600", "1", "null", "x" * 3000, "${x}", "%2e%2e", "\u202e", "\r\n", "_default"]
TREES = [None, True, False, {}, [], [[]], [{}], [None], [1], ["x"], {"": {}}, {"key": 1}, {"infos": [{}]}, nested(60)]
hostile = st.sampled_from([*NUMBERS, *PATHS, *TEXTS, *TREES]).map(copy.deepcopy)
junk = st.binary(max_size=200) | st.text('{}[]",:019.eE-\\ud8ntrufals', max_size=60).map(str.encode)
DUPLICATE = "\0twice"  # becomes a key that is there twice when the document is written


def slots(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) of a JSON tree."""
    steps = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    return [*((value, key) for key, _ in steps), *(slot for _, item in steps for slot in slots(item))]


def mutate(document: Any, data: st.DataObject) -> Any:
    """Return a copy of the document in which one to four places are not what they were."""
    document = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, 4))):
        places = slots(document)
        if not places:
            break
        container, key = data.draw(st.sampled_from(places))
        kind = data.draw(st.sampled_from(["replace", "remove", "twice", "move", "count"]))
        if kind == "replace":
            container[key] = data.draw(hostile)
        elif kind == "remove":
            del container[key]
        elif kind == "twice" and isinstance(container, list):
            container.insert(data.draw(st.integers(0, len(container))), copy.deepcopy(container[key]))
        elif kind == "twice":
            container[f"{key}{DUPLICATE}"] = data.draw(hostile)
        elif kind == "move":
            other, at = data.draw(st.sampled_from(places))
            container[key] = copy.deepcopy(other[at])
        elif type(container[key]) is int:
            container[key] += data.draw(st.integers(-2, 2))
    return document


def written(document: Any, data: st.DataObject) -> bytes:
    """Return the document as JSON, now and then with bytes lost or flipped."""
    plain = data.draw(st.booleans())
    text = json.dumps(document, ensure_ascii=plain)
    content = bytearray(text.replace("\\u0000twice", "").encode("utf-8", "surrogatepass"))
    damage = data.draw(st.sampled_from(["none", "none", "none", "none", "cut", "flip"]))
    if damage == "cut":
        del content[data.draw(st.integers(0, len(content))) :]
    elif damage == "flip" and content:
        for _ in range(data.draw(st.integers(1, 8))):
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    return bytes(content)


# ---- what is promised of everything that is accepted -----------------------------------------------------------------------------


def below(key: str, prefix: str) -> bool:
    """Whether the key is below the prefix, whoever reads its parts."""
    return key.startswith(prefix) and not {"", ".", ".."} & set(key.split("/"))


def check_collection(collection: Collection, root: str) -> None:
    binlogs = layout.binlogs_dir(root, "nightly")
    objects = dict(expected_objects(collection, binlogs))
    assert len(objects) == sum(segment.objects for segment in collection.segments())
    own = tuple(f"{layout.join(root, 'nightly')}/binlogs/{kind}/{collection.collection_id}/" for kind in ("insert_log", "delta_log"))
    assert all(size >= 0 and any(below(key, prefix) for prefix in own) for key, size in objects.items())
    for limit, staged, per_job in ((1, None, 0), (2000, None, 0), (2**40, "restore-temp-0/binlogs/", 0), (2000, None, 3)):
        base = staged or binlogs
        jobs = plan_jobs(collection, Places(binlogs, staged), JobRules(per_job, limit), set())
        for partition in collection.partitions:
            mine = [job for job in jobs if job.partition == partition.name and not job.l0]
            directory = f"insert_log/{collection.collection_id}/{partition.partition_id}/"
            assert all(below(job.inserts.rstrip("/"), base + directory[:-1]) for job in mine)
            assert all(not job.deltas or below(job.deltas.rstrip("/"), base + directory[:-1].replace("insert", "delta")) for job in mine)
            for key in (base + key[len(binlogs) :] for key in objects if key.startswith(binlogs + directory)):
                assert sum(key.startswith(inserts) for job in mine for inserts, *_ in job.files) == 1
        assert {job.partition for job in jobs if job.partition} <= {partition.name for partition in collection.partitions}


def check_copies(plan: BackupPlan) -> None:
    copies = list(plan.copies())
    for copied in copies:
        kinds = ("insert_log", "delta_log")
        assert any(below(copied.source, layout.join(plan.milvus_root, kind) + "/") for kind in kinds)
        assert any(below(copied.destination, layout.binlogs_dir(plan.backup_root, plan.backup.name) + kind) for kind in kinds)
        assert all(ord(char) >= 32 for char in copied.destination[len(plan.backup_root) :])
    assert len({copied.destination for copied in copies}) == len(copies)
    assert len({copied.source for copied in copies}) == len(copies)


def check_backup(backup: Backup) -> None:
    for collection in backup.collections:
        for root in ("", "a/b"):
            check_collection(collection, root)
        assert to_proto(collection.schema, "x").fields
        with contextlib.suppress(ConfigError):
            assert targets([collection.name]) == {collection.name: collection.name}
    for root in ("", "files"):
        check_copies(BackupPlan(replace(backup, name="nightly"), "flush", root, "backup"))
    again = from_files(dict(to_files(backup, "files")))
    assert [(c.name, [p.name for p in c.partitions]) for c in again.collections] == named(backup)


def named(backup: Backup) -> list[tuple[CollectionName, list[str]]]:
    return [(collection.name, [partition.name for partition in collection.partitions]) for collection in backup.collections]


# ---- meta ------------------------------------------------------------------------------------------------------------------------

BIG = synthetic(collections=2, partitions=2, segments=2, partition_l0=True)
SMALL = synthetic()
FULL = [
    json.loads(by_file(rewrite(SMALL.full_meta, generation, "backup", "old")[0]).get("full_meta.json", b"{}")) for generation in GENERATIONS
]
DOCUMENTS = [document for document in (*FULL, BIG.full_meta) if document]
FIELDS = [
    {
        "fieldID": 102,
        "name": "text",
        "data_type": 21,
        "nullable": True,
        "default_value_base64": "MgFh",
        "type_params": [{"key": "a", "value": ""}],
    },
    {"fieldID": 103, "name": "lossy", "data_type": 5, "default_value_proto": "\u0018\u0001"},
]
STRUCT = {"fieldID": 104, "name": "parts", "fields": [{"fieldID": 105, "name": "part", "data_type": 22, "element_type": 21}]}
FUNCTION = {
    "name": "bm25",
    "id": 1,
    "type": 1,
    "input_field_names": ["text"],
    "input_field_ids": [102],
    "params": [{"key": "k", "value": "v"}],
}
RICH = copy.deepcopy(SMALL.full_meta)
RICH["collection_backups"][0]["schema"]["fields"] += FIELDS
RICH["collection_backups"][0]["schema"] |= {"struct_array_fields": [STRUCT], "functions": [FUNCTION], "enable_dynamic_field": True}
LEVELS = {file: json.loads(data) for file, data in by_file(BIG.files()).items() if file != "full_meta.json"}


@settings(FUZZ, max_examples=400)
@given(st.data())
def test_a_changed_full_meta_is_refused_or_names_only_its_own_keys(data: st.DataObject) -> None:
    content = written(mutate(data.draw(st.sampled_from([*DOCUMENTS, RICH])), data), data)
    with documented(BackupDamaged, UnsupportedFormat):
        backup = from_files({"full_meta.json": content})
        check_backup(backup)
        for collection, raw in zip(backup.collections, json.loads(content).get("collection_backups") or [], strict=True):
            assert collection.name == (raw.get("db_name") or "default", raw["collection_name"])
            assert [p.name for p in collection.partitions] == [p["partition_name"] for p in raw.get("partition_backups") or []]


@settings(FUZZ, max_examples=150)
@given(st.data())
def test_a_changed_schema_is_refused_or_can_be_sent(data: st.DataObject) -> None:
    document = copy.deepcopy(RICH)
    collection = document["collection_backups"][0]
    collection["schema"] = mutate(collection["schema"], data)
    with documented(BackupDamaged):
        for found in from_files({"full_meta.json": written(document, data)}).collections:
            assert to_proto(found.schema, "x").SerializeToString()


@settings(FUZZ, max_examples=250)
@given(st.data())
def test_changed_level_files_are_refused_or_name_only_their_own_keys(data: st.DataObject) -> None:
    changed = data.draw(st.lists(st.sampled_from(sorted(LEVELS)), min_size=1, max_size=2, unique=True))
    files = {file: written(mutate(LEVELS[file], data), data) if file in changed else json.dumps(LEVELS[file]).encode() for file in LEVELS}
    with documented(BackupDamaged, UnsupportedFormat):
        check_backup(from_files(files))


@settings(FUZZ, max_examples=150)
@given(junk)
def test_arbitrary_bytes_are_refused(content: bytes) -> None:
    with documented(BackupDamaged, UnsupportedFormat):
        from_files({"full_meta.json": content})


COLLECTION = '{"collection_backups":[{"collection_id":1,"collection_name":"a","schema":{"fields":[{"name":"a",%s}]}}]}'
DEEP_PLACES = ['{"collection_backups":[%s]}', '{"name":%s}', COLLECTION % '"type_params":%s', COLLECTION % '"type_params":[{"key":%s}]']


@pytest.mark.parametrize("place", range(len(DEEP_PLACES)))
def test_what_is_nested_as_deeply_as_json_can_be_read_is_refused(place: int) -> None:
    for depth in (*range(sys.getrecursionlimit() - 150, sys.getrecursionlimit()), 5_000):
        content = DEEP_PLACES[place].replace("%s", "[" * depth + "]" * depth).encode()
        with pytest.raises(BackupDamaged):
            from_files({"full_meta.json": content})
