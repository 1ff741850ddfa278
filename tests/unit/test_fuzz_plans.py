"""Hostile plans and states: only the documented errors come out, and what is accepted stays below its backup."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core import layout
from airflow_provider_milvus_backup.core.errors import BackupDamaged, UnsupportedFormat
from airflow_provider_milvus_backup.core.jsonreader import MAX_INT64
from airflow_provider_milvus_backup.core.meta_reader import from_files
from airflow_provider_milvus_backup.core.names import CollectionName, building_name, check_backup_name
from airflow_provider_milvus_backup.core.plan import BackupPlan
from airflow_provider_milvus_backup.core.restore_state import Job, RestoreState, Target
from tests.unit.test_fuzz_readers import BIG, FUZZ, check_copies, documented, hostile, junk, mutate, written

# ---- plan ------------------------------------------------------------------------------------------------------------------------

PLAN = json.loads(BackupPlan(from_files({"full_meta.json": json.dumps(BIG.full_meta).encode()}), "flush", "files", "backup").to_json())


def check_plan(content: bytes) -> None:
    with documented(BackupDamaged, UnsupportedFormat):
        plan = BackupPlan.from_json(content)
        check_backup_name(plan.backup.name)
        for root in (plan.milvus_root, plan.backup_root):
            assert layout.clean_root(root) == root
        check_copies(plan)


@settings(FUZZ, max_examples=120)
@given(st.data())
def test_a_changed_plan_is_refused_or_writes_only_below_its_backup(data: st.DataObject) -> None:
    check_plan(written(mutate(PLAN, data), data))


@settings(FUZZ, max_examples=60)
@given(st.sampled_from(["name", "milvus_root", "backup_root", "strategy"]), hostile)
def test_a_plan_with_a_hostile_place_is_refused_or_writes_only_below_its_backup(key: str, value: Any) -> None:
    document = copy.deepcopy(PLAN)
    (document["full_meta"] if key == "name" else document)[key] = value
    check_plan(json.dumps(document).encode())


# ---- state -----------------------------------------------------------------------------------------------------------------------

JOB = Job("_default", "backup/demo/binlogs/insert_log/1/2/", "backup/demo/binlogs/delta_log/1/2/", 10, 20, 1, 4711, "running")
DOCS = CollectionName("default", "docs")
BUILDING = building_name(DOCS, "0a1b2c3d")
TARGET = Target(DOCS, DOCS, BUILDING, load=None, aliases=["live"], jobs=[JOB])
STATE = RestoreState("0a1b2c3d", "demo", [TARGET], staged=True, started=1.0, deadline=2.0, databases=["shop"], left=[BUILDING])
STATE_DOCUMENT = json.loads(STATE.to_json())


def check_state(content: bytes) -> None:
    with documented(BackupDamaged):
        state = RestoreState.from_json(content)
        if (state.restore_id, state.backup_name) != (STATE.restore_id, STATE.backup_name):
            return  # no state of this restore: StateStore.find takes it for none
        assert isinstance(state.summary, dict)
        assert all(0 < job_id <= MAX_INT64 for job_id in state.pending())
        assert all(len(name) == 2 for target in state.targets for name in (target.source, target.name, target.building))
        assert all(state.tag(target, job).startswith("0a1b2c3d/") for target, job in state.jobs())
        assert RestoreState.from_json(state.to_json()) == state
        seconds = max(0.0, time.time() - state.started)
        assert state.table(seconds)
        assert "Infinity" not in json.dumps(state.finished(seconds))


@settings(FUZZ, max_examples=250)
@given(st.data())
def test_a_changed_state_is_refused_or_is_a_state(data: st.DataObject) -> None:
    check_state(written(mutate(STATE_DOCUMENT, data), data))


@settings(FUZZ, max_examples=100)
@given(st.sampled_from([*STATE_DOCUMENT, "source", "target", "building"]), hostile | st.lists(st.text(max_size=3), max_size=3))
def test_a_state_with_one_hostile_value_is_refused_or_is_a_state(key: str, value: Any) -> None:
    document = copy.deepcopy(STATE_DOCUMENT)
    inside = {"source": "source", "target": "name", "building": "building"}
    (document["targets"][0] if key in inside else document)[inside.get(key, key)] = value
    check_state(json.dumps(document).encode())


@settings(FUZZ, max_examples=60)
@given(st.sampled_from(list(STATE_DOCUMENT["targets"][0]["jobs"][0])), hostile)
def test_a_state_with_a_hostile_job_is_refused_or_is_a_state(key: str, value: Any) -> None:
    document = copy.deepcopy(STATE_DOCUMENT)
    document["targets"][0]["jobs"][0][key] = value
    check_state(json.dumps(document).encode())


@settings(FUZZ, max_examples=40)
@given(st.sampled_from([*range(-2, 3), 2**63 - 1, 2**63, 2**64 - 1, 2**64]))
def test_a_job_whose_id_cannot_be_sent_is_refused(job_id: int) -> None:
    document = copy.deepcopy(STATE_DOCUMENT)
    document["targets"][0]["jobs"][0]["job_id"] = job_id
    check_state(json.dumps(document).encode())


@settings(FUZZ, max_examples=100)
@given(junk)
def test_arbitrary_bytes_are_neither_a_plan_nor_a_state(content: bytes) -> None:
    for read in (BackupPlan.from_json, RestoreState.from_json):
        with documented(BackupDamaged, UnsupportedFormat):
            read(content)
