"""The contract servers answer each RPC as a Milvus of their version does, or do not know it."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import grpc
import pytest
from pymilvus.grpc_gen import milvus_pb2 as pb

from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.server import MilvusServer
from airflow_provider_milvus_backup.core.settings import MilvusAddress
from tests.contract import shapes
from tests.contract.buckets import MemoryBucket
from tests.contract.clients import fill, stub
from tests.contract.profiles import PROFILES
from tests.contract.rbac import Grant
from tests.contract.scenes import SOURCE, TARGET, Clock, dirs, options
from tests.contract.servers import ContractServer, contract_server

#: First version of ours that knows an RPC.
SINCE = {
    "DescribeDatabase": "2.4.5",
    "BackupRBAC": "2.4.24",
    "RestoreRBAC": "2.4.24",
    "ListPrivilegeGroups": "2.5.4",
    "AddCollectionField": "2.6.4",
    "CreateSnapshot": "3.0.0",
    "ExportSnapshot": "3.0.0",
    "RestoreExternalSnapshot": "3.0.0",
    "GetExportSnapshotState": "3.0.1",
    "ReplicateMessage": "never",
}
REQUESTS = {
    "BackupRBAC": pb.BackupRBACMetaRequest,
    "RestoreRBAC": pb.RestoreRBACMetaRequest,
}


def ask(milvus: Any, rpc: str, **arguments: Any) -> Any:
    request = REQUESTS.get(rpc) or getattr(pb, f"{rpc}Request")
    return getattr(milvus, rpc)(request(**arguments), timeout=60)


def refused(milvus: Any, rpc: str, **arguments: Any) -> tuple[int, str]:
    answer = ask(milvus, rpc, **arguments)
    status = getattr(answer, "status", answer)
    assert status.code == 0 or status.error_code != 0
    return status.code, status.reason


@pytest.mark.parametrize("version", PROFILES)
def test_rpcs_a_version_does_not_know_are_unimplemented(version: str) -> None:
    order = [*PROFILES, "never"]
    with contract_server(version) as server, stub(server) as milvus:
        unknown = set()
        for rpc in SINCE:
            request = (REQUESTS.get(rpc) or getattr(pb, f"{rpc}Request"))()
            if getattr(milvus, rpc).future(request, timeout=60).code() is grpc.StatusCode.UNIMPLEMENTED:
                unknown.add(rpc)
    assert unknown == {rpc for rpc, since in SINCE.items() if order.index(since) > order.index(version)}


@pytest.mark.parametrize("version", PROFILES)
def test_the_providers_own_requests_are_answered(version: str) -> None:
    with contract_server(version) as server:
        milvus = MilvusServer(MilvusAddress(server.host, server.port))
        name = CollectionName("db", "c")
        milvus.create_database("db")
        assert milvus.databases() == ["db", "default"]
        server.model.create_collection(name, shapes.schema("c"), properties={"collection.ttl.seconds": "60"})
        milvus.create_partition(name, "p")
        server.model.create_index(name, "v", "by_v", {"index_type": "FLAT", "metric_type": "L2"})
        milvus.create_alias(name, "a")
        described = milvus.describe(CollectionName("db", "a"))
        assert (described.schema.name, list(described.aliases), described.num_partitions) == ("c", ["a"], 2)
        assert [field.fieldID for field in described.schema.fields] == [100, 101]
        assert [(pair.key, pair.value) for pair in described.properties] == [("collection.ttl.seconds", "60")]
        assert milvus.collection_id(CollectionName("db", "a")) is None
        assert milvus.collection_id(CollectionName("db", "nope")) is None
        assert [(index.field_name, index.index_name, index.index_type) for index in milvus.indexes(name)] == [("v", "by_v", "FLAT")]
        assert [partition for _, partition in milvus.partitions(name)] == ["_default", "p"]
        assert milvus.load_state(name) == "NotLoad"
        milvus.load(name)
        assert (milvus.load_state(name), milvus.load_state(name, "p"), milvus.refreshed(name)) == ("Loaded", "Loaded", True)
        milvus.release_collection(name)
        server.model.insert(name, [shapes.row(1)], "p")
        flushed = milvus.flush(name)
        while not milvus.flush_done(name, flushed):
            time.sleep(0.005)
        (segment,) = milvus.segments(name)
        assert (segment.segment_id, segment.rows, segment.is_l0) == (flushed.segment_ids[0], 1, False)
        assert segment.storage_version == (2 if version >= "2.6" else 0)
        assert len(flushed.channel_checkpoints) == 1
        server.model.drop_alias("db", "a")
        milvus.rename_collection(name, "d")
        assert milvus.collections("db") == ["d"]
        milvus.drop_collection(CollectionName("db", "d"))
        milvus.drop_database("db")
        assert milvus.databases() == ["default"]
        milvus.close()


def test_refusals_have_milvus_codes_and_texts() -> None:
    with contract_server("2.5.10") as server, stub(server) as milvus:
        fill(server)
        for_nope = {"collection_name": "nope"}
        assert refused(milvus, "DescribeCollection", **for_nope) == (100, "can't find collection[database=default][collection=nope]")
        assert refused(milvus, "Flush", collection_names=["nope"]) == (100, "collection not found[database=default][collection=nope]")
        assert refused(milvus, "DescribeIndex", collection_name="source") == (700, "index not found[collection=source]")
        assert refused(milvus, "LoadCollection", collection_name="source") == (700, "index not found[collection=source]")
        assert refused(milvus, "DropDatabase", db_name="default") == (65535, "can not drop default database")
        assert refused(milvus, "ShowCollections", db_name="nope") == (800, "database not found[database=nope]")
        assert refused(milvus, "DropCollection", **for_nope) == (0, "")
        server.model.create_alias(SOURCE, "a")
        assert "because it has associated aliases [a]" in refused(milvus, "DropCollection", collection_name="source")[1]
        other = shapes.schema("source", shapes.field("id", shapes.VARCHAR, key=True)).SerializeToString()
        assert refused(milvus, "CreateCollection", collection_name="source", schema=other) == (
            65535,
            "create duplicate collection with different parameters, collection: source",
        )


# ---- segments and flushes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "expected"),
    [("2.4.5", (0, False, 0)), ("2.4.24", (1, False, 0)), ("2.5.10", (1, False, 0)), ("2.6.4", (1, False, 0))],
)
def test_l0_segments_are_listed_with_what_the_version_says_of_them(version: str, expected: tuple[int, bool, int]) -> None:
    with contract_server(version) as server, stub(server) as milvus:
        fill(server)
        server.model.compact(SOURCE)
        server.model.delete(SOURCE, [1])
        server.model.flush(SOURCE)
        infos = ask(milvus, "GetPersistentSegmentInfo", collectionName="source").infos
    l0 = [info for info in infos if info.num_rows == 0]
    assert [(info.partitionID, info.level, info.is_sorted, info.storage_version) for info in l0] == [(-1, *expected)]
    assert {info.is_sorted for info in infos if info.num_rows} == {version >= "2.5"}


def test_a_flush_of_deletes_alone_seals_nothing_and_is_waited_for_by_its_timestamp() -> None:
    clock = Clock()
    with contract_server("2.5.10", monotonic=clock) as server, stub(server) as milvus:
        fill(server)
        server.model.delete(SOURCE, [1])
        answer = ask(milvus, "Flush", collection_names=["source"])
        ts = answer.coll_flush_ts["source"]
        assert list(answer.coll_segIDs["source"].data) == []
        assert {position.timestamp < ts for position in answer.channel_cps.values()} == {True}
        assert ask(milvus, "GetFlushState").flushed
        assert not ask(milvus, "GetFlushState", collection_name="source", flush_ts=ts).flushed
        clock.tick()
        assert ask(milvus, "GetFlushState", collection_name="source", flush_ts=ts).flushed
        assert len(server.model.bucket.list("files/delta_log/")) == 1


def test_of_several_collections_only_the_last_ones_checkpoints_survive_on_2_6() -> None:
    found = {}
    for version in ("2.5.10", "2.6.4"):
        with contract_server(version) as server, stub(server) as milvus:
            fill(server)
            answer = ask(milvus, "Flush", collection_names=["source", "target"])
            last = set(server.model.collection(TARGET).vchannels)
            found[version] = (len(answer.channel_cps), last <= set(answer.channel_cps))
    assert found == {"2.5.10": (3, True), "2.6.4": (1, True)}


def test_one_collection_is_flushed_once_in_ten_seconds_unless_a_test_says_otherwise() -> None:
    with contract_server("2.4.24", flush_interval=None) as server, stub(server) as milvus:
        fill(server)
        assert refused(milvus, "Flush", collection_names=["source"])[0] == 0
        code, text = refused(milvus, "Flush", collection_names=["source"])
        assert code == 8
        assert text.endswith("please retry later: rate limit exceeded[rate=0.1]")
        assert refused(milvus, "Flush", collection_names=["target"])[0] == 0
    clock = Clock()
    with contract_server("2.4.24", flush_interval=1.0, monotonic=clock) as server, stub(server) as milvus:
        fill(server)
        codes = [refused(milvus, "Flush", collection_names=["source"])[0] for _ in range(2)]
        clock.tick()
        assert [*codes, refused(milvus, "Flush", collection_names=["source"])[0]] == [0, 8, 0]


def test_flush_all_answers_a_timestamp_or_messages() -> None:
    for version, messages in {"2.5.10": False, "2.6.4": False, "2.6.20": True, "3.0.1": True}.items():
        clock = Clock()
        with contract_server(version, monotonic=clock) as server, stub(server) as milvus:
            fill(server)
            server.model.insert(SOURCE, [shapes.row(77)])
            answer = ask(milvus, "FlushAll")
            assert (answer.flush_all_ts == 0, len(answer.flush_all_msgs)) == ((True, 16) if messages else (False, 0))
            asked: dict[str, Any] = {"flush_all_ts": answer.flush_all_ts}
            if messages:
                assert refused(milvus, "GetFlushAllState") == (1100, "FlushAllTss or FlushAllTs is required: invalid parameter")
                asked = {"flush_all_tss": {channel: int(m.properties["_tt"], 36) for channel, m in answer.flush_all_msgs.items()}}
            assert not ask(milvus, "GetFlushAllState", **asked).flushed
            clock.tick()
            assert ask(milvus, "GetFlushAllState", **asked).flushed
            assert sum(len(segment.rows) for segment in server.model.listed(SOURCE)) == 6


# ---- importing ---------------------------------------------------------------------------------------------------------------------


def run(server: ContractServer, milvus: Any, **more: str) -> Any:
    source = fill(server)
    given = [{"key": key, "value": value} for key, value in options(server.model, **more).items()]
    answer = ask(milvus, "Import", collection_name="target", partition_name="_default", files=dirs(source), options=given)
    server.model.finish_jobs()
    return answer


@pytest.mark.parametrize("version", PROFILES)
def test_an_import_over_grpc_is_one_pair_and_its_state_names_nothing_but_rows(version: str) -> None:
    with contract_server(version) as server, stub(server) as milvus:
        (job,) = run(server, milvus).tasks
        state = ask(milvus, "GetImportState", task=job)
        assert (state.state, state.row_count, state.id, state.collection_id, list(state.segment_ids)) == (6, 5, 0, 0, [])
        assert {pair.key: pair.value for pair in state.infos} == {"failed_reason": "", "progress_percent": "100"}
        assert [task.id for task in ask(milvus, "ListImportTasks", collection_name="target").tasks] == [0]
        assert server.model.rows(TARGET) == server.model.rows(SOURCE)
        assert refused(milvus, "Import", collection_name="target", partition_name="_default", files=["a/", "b/", "c/", "d/"])[0] == 2100


def test_a_job_that_waits_for_its_commit_counts_as_failed_over_grpc() -> None:
    with contract_server("3.0.0") as server, stub(server) as milvus:
        (job,) = run(server, milvus, auto_commit="false").tasks
        assert ask(milvus, "GetImportState", task=job).state == 1
        assert server.model.row_count(TARGET) == 0


# ---- catalog, users ----------------------------------------------------------------------------------------------------------------


def test_databases_have_properties() -> None:
    with contract_server("2.6.4") as server, stub(server) as milvus:
        ask(milvus, "CreateDatabase", db_name="db", properties=[{"key": "database.replica.number", "value": "1"}])
        ask(milvus, "AlterDatabase", db_name="db", properties=[{"key": "database.max.collections", "value": "9"}])
        answer = ask(milvus, "DescribeDatabase", db_name="db")
        assert {pair.key: pair.value for pair in answer.properties} == {"database.replica.number": "1", "database.max.collections": "9"}
        assert refused(milvus, "DescribeDatabase", db_name="nope")[0] == 800


def test_a_field_is_added_with_the_next_id_and_3_0_remembers_the_highest() -> None:
    for version, properties in (("2.6.4", {}), ("3.0.0", {"max_field_id": "102"})):
        with contract_server(version) as server, stub(server) as milvus:
            server.model.create_collection(SOURCE, shapes.schema("source"))
            bad = shapes.field("n", shapes.INT64).SerializeToString()
            assert refused(milvus, "AddCollectionField", collection_name="source", schema=bad) == (
                1100,
                "added field must be nullable, please check it, field name = n: invalid parameter",
            )
            good = shapes.field("n", shapes.INT64, nullable=True).SerializeToString()
            assert refused(milvus, "AddCollectionField", collection_name="source", schema=good) == (0, "")
            answer = ask(milvus, "DescribeCollection", collection_name="source")
            assert [(field.name, field.fieldID) for field in answer.schema.fields][-1] == ("n", 102)
            assert {pair.key: pair.value for pair in answer.properties} == properties


def test_users_and_roles_are_restored_as_a_whole_or_not_at_all() -> None:
    with contract_server("2.6.4") as source, contract_server("2.6.4") as target, stub(source) as one, stub(target) as two:
        source.model.create_role("reader")
        source.model.create_user("bob", "secret", ["reader"])
        source.model.grant(Grant("reader", "Collection", "*", "default", "Search"))
        source.model.create_privilege_group("pg", ["Query"])
        meta = ask(one, "BackupRBAC").RBAC_meta
        assert ([user.user for user in meta.users], [role.name for role in meta.roles]) == (["bob"], ["reader"])
        target.model.create_user("bob", "other")
        assert refused(two, "RestoreRBAC", RBAC_meta=meta) == (65535, "user [bob] already exists")
        assert (target.model.roles, target.model.privilege_groups, target.model.grants) == (["admin", "public"], {}, [])
        del target.model.users["bob"]
        assert refused(two, "RestoreRBAC", RBAC_meta=meta) == (0, "")
        assert ask(two, "BackupRBAC").RBAC_meta == meta
        assert refused(two, "RestoreRBAC", RBAC_meta=meta) == (65535, "role [reader] already exists")
        assert refused(two, "RestoreRBAC", RBAC_meta=pb.RBACMeta()) == (65535, "rbac meta is empty")


def test_a_grant_of_everything_is_not_restored_before_april_2026_and_can_be_given_by_whoever_logs_in() -> None:
    answers = {}
    for version in ("2.4.24", "2.6.4", "2.6.20", "3.0.0"):
        with contract_server(version) as server, stub(server) as milvus:
            server.model.create_role("all")
            entity = pb.GrantEntity(object_name="*", db_name="*", role=pb.RoleEntity(name="all"), object=pb.ObjectEntity(name="Global"))
            entity.grantor.privilege.name = "*"
            answers[version] = refused(milvus, "RestoreRBAC", RBAC_meta=pb.RBACMeta(grants=[entity]))
            assert "fail to get authorization" in refused(milvus, "OperatePrivilege", entity=entity)[1]
            root = [("authorization", base64.b64encode(b"root:Milvus").decode())]
            assert milvus.OperatePrivilege(pb.OperatePrivilegeRequest(entity=entity), metadata=root, timeout=60).code == 0
            assert {grant.privilege for grant in server.model.grants} == {"*"}
    assert answers == {
        "2.4.24": (65535, "privilege group [] does not exist"),
        "2.6.4": (65535, "privilege [*] does not exist"),
        "2.6.20": (0, ""),
        "3.0.0": (0, ""),
    }


# ---- snapshots ---------------------------------------------------------------------------------------------------------------------


def test_3_0_0_has_snapshots_and_no_way_out_for_them() -> None:
    with contract_server("3.0.0") as server, stub(server) as milvus:
        fill(server)
        assert refused(milvus, "CreateSnapshot", name="s", collection_name="source") == (0, "")
        assert list(ask(milvus, "ListSnapshots", collection_name="source").snapshots) == ["s"]
        answer = refused(milvus, "ExportSnapshot", name="s", collection_name="source", target_s3_path="s3://a-bucket/x")
        assert answer == (10, "ExportSnapshot is not implemented: service unimplemented")
        assert refused(milvus, "RestoreExternalSnapshot", target_collection_name="t")[0] == 10
        assert refused(milvus, "DropSnapshot", name="s", collection_name="source") == (0, "")
        assert refused(milvus, "CreateSnapshot", name="s", collection_name="source", compaction_protection_seconds=604_801)[0] == 1100


def test_a_snapshot_goes_from_one_cluster_to_another_with_deletes_and_indexes() -> None:
    vault, clock = MemoryBucket(), Clock()
    with (
        contract_server("3.0.1", monotonic=clock) as source,
        contract_server("3.0.1", monotonic=clock) as target,
        stub(source) as one,
        stub(target) as two,
    ):
        source.model.buckets["vault"] = target.model.buckets["vault"] = vault
        fill(source)
        source.model.create_index(SOURCE, "v", "v", {"index_type": "FLAT"})
        source.model.delete(SOURCE, [1])
        source.model.flush(SOURCE)
        rows = source.model.rows(SOURCE)
        ask(one, "CreateSnapshot", name="s", collection_name="source")
        source.model.delete(SOURCE, [2])
        source.model.flush(SOURCE)
        refusal = refused(one, "ExportSnapshot", name="s", collection_name="source", target_s3_path="minio://h:1/vault/b")
        assert "external_spec is needed" in refusal[1]
        job = ask(one, "ExportSnapshot", name="s", collection_name="source", target_s3_path="s3://vault/b/bundle").job_id
        assert ask(one, "GetExportSnapshotState", job_id=job).info.state == 2
        assert "pinned" in refused(one, "DropSnapshot", name="s", collection_name="source")[1]
        clock.tick()
        info = ask(one, "GetExportSnapshotState", job_id=job).info
        data = [content for key, content in vault.objects.items() if "/snapshots/" not in key]
        assert (info.state, info.total_files, info.copied_files, info.total_bytes) == (3, len(data), len(data), sum(map(len, data)))
        assert refused(one, "DropSnapshot", name="s", collection_name="source") == (0, "")
        spec = json.dumps({"extfs": {"cloud_provider": "minio"}})
        uri = info.snapshot_metadata_uri.replace("s3://vault", "minio://elsewhere:9000/vault")
        job = ask(two, "RestoreExternalSnapshot", target_collection_name="source", snapshot_metadata_uri=uri, external_spec=spec).job_id
        clock.tick()
        assert ask(two, "GetRestoreSnapshotState", job_id=job).info.state == 3
        assert target.model.rows(SOURCE) == rows
        assert [index.name for index in target.model.indexes(SOURCE)] == ["v"]
