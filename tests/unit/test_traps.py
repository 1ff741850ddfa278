"""What the formats and servers have in store for whoever does not look, as far as no other test keeps it: pure functions."""

from __future__ import annotations

from typing import Any

import pytest
from pymilvus.grpc_gen import common_pb2

from airflow_provider_milvus_backup.core import flushing, imports, schema
from airflow_provider_milvus_backup.core.errors import ServerError, SourceChanged
from airflow_provider_milvus_backup.core.imports import Failure, JobState
from airflow_provider_milvus_backup.core.job_planning import JobRules, Places, plan_jobs
from airflow_provider_milvus_backup.core.plan import pair
from airflow_provider_milvus_backup.core.restore_plan import AS_BACKED_UP, partitions_to_load
from airflow_provider_milvus_backup.core.rpc import is_passing
from airflow_provider_milvus_backup.core.server import ServerSegment
from airflow_provider_milvus_backup.core.store import StoredObject
from tests.unit.meta_documents import coll, head, part, read

# ---- what servers say --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reason",
    [
        "import task queue max size is 32, currently there are 32 tasks is pending. Not able to execute this request with 1 tasks.",
        "rate limit exceeded[rate=0.1]",
        "request is rejected by grpc RateLimiter middleware, please retry later: rate limit exceeded[rate=0.1]",
    ],
)
def test_a_full_queue_and_a_rate_limit_pass(reason: str) -> None:
    assert is_passing(reason)


def test_the_limit_of_jobs_is_no_failure_and_that_of_files_is_one() -> None:
    jobs = "The number of jobs has reached the limit, please try again later. If your request is set to only import a single file, …"
    assert imports.full(ServerError(jobs))
    assert not imports.full(ServerError("The max number of import files should not exceed 1024, but got 1025"))
    assert not imports.full(ServerError("The import file size has reached the maximum limit allowed for importing, fileSize=17GB"))


def test_a_job_of_2_3_that_took_too_long_is_submitted_again_and_a_wrong_file_is_not() -> None:
    assert imports.failure("the import task has timed out") is Failure.PASSING
    for reason in ("the field 105 has no binlog file", "misaligned binlog count, field108:8, field0:9", "disk quota exceeded"):
        assert imports.failure(reason) is Failure.PERMANENT


@pytest.mark.parametrize(
    "state", ["Pending", "Importing", "Sorting", "Stats", "IndexBuilding", "Uncommitted", "Committing", "ImportPersisted"]
)
def test_no_state_but_the_last_ones_is_an_end_whatever_its_progress(state: str) -> None:
    assert imports.classify(1, state, rows=5, progress=100).state is JobState.RUNNING


def test_the_time_tick_of_a_flush_of_everything_is_a_number_to_the_base_36() -> None:
    message = common_pb2.ImmutableMessage(properties={"_tt": "10"})
    assert flushing.time_tick(message) == 36
    with pytest.raises(ServerError, match="no timestamp"):
        flushing.time_tick(common_pb2.ImmutableMessage())


def test_rows_without_files_are_never_left_out_silently() -> None:
    segment = ServerSegment(5, 2, 100, is_l0=False, storage_version=1, v_channel="")
    with pytest.raises(SourceChanged, match="segment 5 has 100 rows in Milvus and no insert binlogs in the bucket"):
        pair([segment], [], [StoredObject("files/delta_log/1/2/5/9", 10, "")], "files")


# ---- schemas -----------------------------------------------------------------------------------------------------------------------


def test_columns_of_one_type_in_another_order_are_not_swapped() -> None:
    def document(*names: str) -> dict[str, Any]:
        key = {"fieldID": 100, "name": "pk", "is_primary_key": True, "data_type": 5}
        return {"name": "docs", "fields": [key, *({"fieldID": 101 + i, "name": name, "data_type": 10} for i, name in enumerate(names))]}

    assert schema.differences(document("price", "weight"), document("price", "weight")) == []
    assert schema.differences(document("price", "weight"), document("weight", "price")) == [
        "'price' has id 102 Float instead of id 101 Float",
        "'weight' has id 101 Float instead of id 102 Float",
    ]


# ---- backups of the official tool ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_ids", [False, True])
def test_l0_segments_that_releases_before_0_4_15_did_not_mark_keep_deleting(with_ids: bool) -> None:
    document = head(partition_l0=True)
    segment = part(document)["segment_backups"][-1]
    assert segment.pop("is_l0")
    if not with_ids:
        for log in (log for logs in segment["deltalogs"] for log in logs["binlogs"]):
            del log["log_id"]
    (collection,) = read(document).collections
    jobs = plan_jobs(collection, Places("b/"), JobRules(256, 2**40, l0_import=True), [])
    # Later releases mark L0 segments, so that one without a mark holds rows, or held some.
    assert [job.partition for job in jobs if job.l0] == ([""] if with_ids else ["_default", ""])


def test_partitions_that_the_official_tool_calls_not_loaded_are_loaded_with_their_collection() -> None:
    document = head(partitions=2)
    coll(document)["load_state"] = "Loading"
    for partition in coll(document)["partition_backups"]:
        partition["load_state"] = "NotLoad"
    (collection,) = read(document).collections
    assert partitions_to_load(collection, AS_BACKED_UP) is None
