"""The contract servers answer over gRPC and REST as a Milvus of their version does."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from obstore.store import MemoryStore
from pymilvus import DataType, MilvusClient
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

from tests.contract import shapes
from tests.contract.buckets import Bucket, MemoryBucket, S3Bucket, children
from tests.contract.clients import Rest, create, ended, fill, get, stub
from tests.contract.jobs import Fate
from tests.contract.profiles import PROFILES
from tests.contract.recording import Request
from tests.contract.refusals import Refusal
from tests.contract.scenes import SOURCE, TARGET
from tests.contract.servers import contract_server
from tests.contract.tls import authority

PASSWORDS = {"root": "Milvus"}


# ---- buckets -----------------------------------------------------------------------------------------------------------------------


def test_both_buckets_list_by_string_prefix() -> None:
    listings = []
    both: list[Bucket] = [MemoryBucket(), S3Bucket(MemoryStore())]
    for bucket in both:
        for key in ("a/1/x", "a/12/x", "a/2", "b"):
            bucket.put(key, key.encode())
        bucket.put("gone", b"")
        bucket.delete("gone")
        with pytest.raises(KeyError):
            bucket.get("gone")
        assert bucket.get("a/2") == b"a/2"
        listings.append([bucket.list("a/1"), bucket.list("a/1/"), bucket.list(""), children(bucket, "a/"), children(bucket, "a/1")])
    assert listings[0] == listings[1]
    assert listings[0][3:] == [["a/1/", "a/12/", "a/2"], ["a/1/", "a/12/"]]


# ---- one port for both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", PROFILES)
def test_pymilvus_works_with_it_and_rest_is_on_the_same_port(version: str) -> None:
    with contract_server(version) as server:
        client = MilvusClient(f"http://{server.host}:{server.port}")
        assert client.get_server_version() == f"v{version}"
        schema = client.create_schema(enable_dynamic_field=True)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("v", DataType.FLOAT_VECTOR, dim=2)
        client.create_collection("source", schema=schema)
        server.model.insert(SOURCE, [shapes.row(1, more="x")])
        with Rest(server) as rest:
            assert rest.post("jobs/import/list", {}) == {"code": 0, "data": {"records": []}}
        assert client.list_collections() == ["source"]
        client.close()


def test_nothing_stays_behind() -> None:
    before = set(threading.enumerate())
    with contract_server("2.6.4") as server:
        rest = Rest(server)
        assert rest.post("jobs/import/list", {})["code"] == 0
        channel = grpc.insecure_channel(f"{server.host}:{server.port}")
        milvus_pb2_grpc.MilvusServiceStub(channel).GetVersion(milvus_pb2.GetVersionRequest(), timeout=60)
    with pytest.raises(OSError):  # noqa: PT011 (refused or reset)
        http.client.HTTPConnection(server.host, server.port, timeout=1).connect()
    channel.close()
    with rest:
        pass
    assert {thread for thread in threading.enumerate() if thread.name.startswith("contract")} <= before


def test_tls_with_client_certificates(tmp_path: Path) -> None:
    files = authority(tmp_path, mutual=True)
    with contract_server("2.6.4", certificates=files.server) as server:
        context = ssl.create_default_context(cafile=files.ca)
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)), Rest(server, context=context) as rest:
            rest.post("jobs/import/list", {})
        context.load_cert_chain(files.client_certificate, files.client_key)
        with Rest(server, context=context) as rest:
            assert rest.post("jobs/import/list", {})["code"] == 0
        credentials = grpc.ssl_channel_credentials(
            files.ca.read_bytes(), files.client_key.read_bytes(), files.client_certificate.read_bytes()
        )
        with stub(server, channel=grpc.secure_channel(f"{server.host}:{server.port}", credentials)) as milvus:
            assert milvus.GetVersion(milvus_pb2.GetVersionRequest(), timeout=60).version == "v2.6.4"


def test_a_thousand_jobs_are_polled_at_once() -> None:
    with contract_server("2.5.10") as server:
        server.model.phase_seconds = 1e9
        source = fill(server)
        with Rest(server) as rest:
            ids = [rest.post("jobs/import/create", create(server, source))["data"]["jobId"] for _ in range(1000)]
        barrier = threading.Barrier(200, timeout=120)

        def poll(mine: list[str]) -> list[str]:
            with Rest(server) as own:
                own.post("jobs/import/list", {"collectionName": "source"})
                barrier.wait()  # all connections are open at the same time
                return [own.post("jobs/import/describe", {"jobId": job})["data"]["state"] for job in mine]

        with ThreadPoolExecutor(200) as pool:
            states = [state for found in pool.map(poll, (ids[i::200] for i in range(200))) for state in found]
        assert states == ["Pending"] * 1000
        assert server.requests["jobs/import/describe"] == 1000


# ---- who may ask -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer root:Milvus", 200),
        ("Basic " + base64.b64encode(b"root:Milvus").decode(), 200),
        ("Bearer the-key", 200),
        ("Bearer root:wrong", 401),
        ("Bearer another-key", 401),
        ("Bearer ", 401),
        ("root:Milvus", 401),
        ("", 401),
    ],
)
def test_rest_lets_in_who_logs_in(header: str, status: int) -> None:
    with (
        contract_server("2.6.4", passwords=PASSWORDS, api_keys={"the-key"}) as server,
        Rest(server, {"Authorization": header} if header else {}) as rest,
    ):
        answered, body = rest.raw("jobs/import/list", b"{}")
        assert answered == status
        assert json.loads(body)["code"] == (0 if status == 200 else 1800)


@pytest.mark.parametrize(
    ("secret", "code"), [("root:Milvus", "OK"), ("the-key", "OK"), ("root:no", "UNAUTHENTICATED"), ("", "UNAUTHENTICATED")]
)
def test_grpc_lets_in_who_logs_in(secret: str, code: str) -> None:
    with contract_server("2.6.4", passwords=PASSWORDS, api_keys={"the-key"}) as server, stub(server) as milvus:
        metadata = [("authorization", base64.b64encode(secret.encode()).decode())] if secret else []
        try:
            milvus.ListDatabases(milvus_pb2.ListDatabasesRequest(), metadata=metadata, timeout=60)
            found = "OK"
        except grpc.RpcError as error:
            found = error.code().name
        assert found == code


def test_a_user_may_lack_privileges() -> None:
    with contract_server("2.6.4", passwords={"root": "Milvus", "bob": "secret"}) as server, stub(server) as milvus:
        server.accounts.forbidden["bob"] = {"BackupRBAC", "jobs/import/list"}
        encoded = base64.b64encode(b"bob:secret").decode()
        denied = milvus.BackupRBAC.future(milvus_pb2.BackupRBACMetaRequest(), metadata=[("authorization", encoded)], timeout=60)
        assert denied.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "permission deny to bob in the `default` database" in denied.details()
        for header in ("Bearer bob:secret", f"Basic {encoded}"):
            with Rest(server, {"Authorization": header}) as rest:
                assert rest.raw("jobs/import/list", b"{}")[0] == 403
                assert rest.raw("jobs/import/describe", b'{"jobId": "1"}')[0] == 200
        with Rest(server, {"Authorization": "Bearer root:Milvus"}) as rest:
            assert rest.raw("jobs/import/list", b"{}")[0] == 200


# ---- REST --------------------------------------------------------------------------------------------------------------------------

ROUTES = {
    "jobs/import/create": "2.4.5",
    "jobs/import/list": "2.4.5",
    "jobs/import/get_progress": "2.4.5",
    "jobs/import/describe": "2.4.24",
    "segments/describe": "2.5.10",
    "jobs/import/commit": "3.0.0",
    "jobs/import/abort": "3.0.0",
}


@pytest.mark.parametrize("version", PROFILES)
def test_routes_a_version_does_not_have_are_not_there(version: str) -> None:
    number = tuple(map(int, version.split(".")))
    with contract_server(version) as server, Rest(server) as rest:
        found = {route: rest.raw(route, b"{}")[0] for route in [*ROUTES, "collections/nope"]}
    assert found == {
        **{route: 200 if number >= tuple(map(int, since.split("."))) else 404 for route, since in ROUTES.items()},
        "collections/nope": 404,
    }


BAD = [
    ({"options": {"backup": True}}, 1801, "cannot unmarshal bool into Go struct field ImportReq.options of type string"),
    ({"options": {"end_ts": 1}}, 1801, "cannot unmarshal number into Go struct field ImportReq.options of type string"),
    ({"options": "backup"}, 1801, "cannot unmarshal string into Go struct field ImportReq.options of type map[string]string"),
    ({"files": ["a/"]}, 1801, "cannot unmarshal string into Go struct field ImportReq.files of type []string"),
    ({"files": None}, 1802, "Key: 'ImportReq.Files' Error:Field validation for 'Files' failed on the 'required' tag"),
    ({"collectionName": ""}, 1802, "Key: 'ImportReq.CollectionName' Error:Field validation for 'CollectionName' failed"),
    ({"dbName": 1}, 1801, "cannot unmarshal number into Go struct field ImportReq.dbName of type string"),
    ({"dbName": "nope"}, 800, "database not found, database: nope"),
    ({"collectionName": "nope"}, 100, "collection not found[database=default][collection=nope]"),
]


@pytest.mark.parametrize(("change", "code", "text"), BAD)
def test_rest_is_as_strict_about_json_as_gin(change: dict[str, Any], code: int, text: str) -> None:
    with contract_server("2.6.4") as server, Rest(server) as rest:
        answer = rest.post("jobs/import/create", {**create(server, fill(server)), **change})
    assert answer["code"] == code
    assert text in answer["message"]


def test_bodies_that_are_no_object_are_refused_and_keys_may_have_any_case() -> None:
    with contract_server("2.6.4") as server, Rest(server) as rest:
        source = fill(server)
        segment = server.model.listed(SOURCE)[0]
        assert [json.loads(rest.raw("segments/describe", body)[1])["code"] for body in (b"", b"{", b"[]")] == [1801] * 3
        assert rest.post("segments/describe", {"collectionID": "1", "segmentIDs": [1]})["code"] == 1801
        assert rest.post("segments/describe", {"collectionID": 1})["code"] == 1802
        answer = rest.post("segments/describe", {"dbName": "", "collectionId": source.id, "segmentIds": [segment.id]})
    assert answer["data"]["segmentInfos"] == [
        {
            "segmentID": segment.id,
            "collectionID": source.id,
            "partitionID": source.partitions[0].id,
            "vChannel": segment.vchannel,
            "numRows": len(segment.rows),
            "state": 4,
            "level": 2,
            "isSorted": False,
            "insertLogs": [{"fieldID": group, "logIDs": segment.insert_logs[group]} for group in (0, 101)],
            "deltaLogs": [],
            "statsLogs": [],
        }
    ]


def test_the_database_is_that_of_the_body_or_of_the_header() -> None:
    with contract_server("2.5.10") as server:
        server.model.create_database("db")
        source = fill(server)
        server.model.create_collection(("db", "target"), shapes.schema("target"))
        with Rest(server, {"DB-Name": "db"}) as rest:
            first = ended(rest, rest.post("jobs/import/create", create(server, source))["data"]["jobId"])
            assert (first["state"], server.model.row_count(("db", "target")), server.model.row_count(TARGET)) == ("Completed", 5, 0)
            ended(rest, rest.post("jobs/import/create", create(server, source, dbName="default"))["data"]["jobId"])
            assert (server.model.row_count(("db", "target")), server.model.row_count(TARGET)) == (5, 5)


@pytest.mark.parametrize("version", PROFILES)
def test_a_job_by_rest(version: str) -> None:
    with contract_server(version) as server, Rest(server) as rest:
        source = fill(server)
        job = rest.post("jobs/import/create", create(server, source))["data"]["jobId"]
        data = ended(rest, job)
        assert {key: data[key] for key in ("jobId", "collectionName", "state", "progress", "importedRows", "totalRows")} == {
            "jobId": job,
            "collectionName": "target",
            "state": "Completed",
            "progress": 100,
            "importedRows": 5,
            "totalRows": 5,
        }
        assert ("createTime" in data) == (version in ("2.6.20", "3.0.0", "3.0.1"))
        assert sorted(detail["importedRows"] for detail in data["details"]) == sorted(len(s.rows) for s in server.model.listed(SOURCE))
        assert rest.post("jobs/import/list", {"collectionName": "target"})["data"]["records"] == [
            {"jobId": job, "collectionName": "target", "state": "Completed", "progress": 100}
        ]
        assert rest.post("jobs/import/list", {"collectionName": "source"})["data"]["records"] == []
        unknown = rest.post("jobs/import/get_progress", {"jobId": "7"})
        assert unknown["code"] in (2100, 2101)
        assert unknown["message"].startswith("import job does not exist, jobID=7")
        assert server.model.rows(TARGET) == server.model.rows(SOURCE)
        assert server.recorder.of("jobs/import/create") == [create(server, source)]


def test_a_job_whose_answer_is_lost_is_there_all_the_same() -> None:
    with contract_server("2.6.4") as server:
        source = fill(server)
        server.model.fates.append(Fate(lose_answer=True))
        with Rest(server) as rest, pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            rest.post("jobs/import/create", create(server, source))
        with Rest(server) as rest:
            (record,) = rest.post("jobs/import/list", {})["data"]["records"]
            assert ended(rest, record["jobId"])["importedRows"] == 5


def test_what_is_raised_before_an_answer_is_the_answer() -> None:
    def before(request: Request) -> None:
        if server.requests[request.name] == 1:
            raise {"jobs/import/list": ConnectionResetError(), "GetVersion": Refusal(8, "rate limit exceeded[rate=0.1]")}[request.name]

    with contract_server("2.6.4") as server, stub(server) as milvus:
        server.recorder.before = before
        with Rest(server) as rest, pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            rest.post("jobs/import/list", {})
        with Rest(server) as rest:
            assert rest.post("jobs/import/list", {})["code"] == 0
        statuses = [milvus.GetVersion(milvus_pb2.GetVersionRequest(), timeout=60).status for _ in range(2)]
        assert [(status.code, status.error_code) for status in statuses] == [(8, 49), (0, 0)]


# ---- management --------------------------------------------------------------------------------------------------------------------


def test_before_2_6_8_one_pause_is_for_the_whole_cluster_and_anyone_ends_it() -> None:
    with contract_server("2.6.4") as server:
        assert get(server, "pause?pause_seconds=60&collection_id=5") == (200, {"msg": "OK"})
        assert server.gc.paused(7)
        assert get(server, "pause?pause_seconds=1") == (200, {"msg": "OK"})
        assert get(server, "resume?ticket=nobodys") == (200, {"msg": "OK"})
        assert not server.gc.paused()
        assert get(server, "pause?pause_seconds=soon")[0] == 500
        assert get(server, "nothing") == (404, b"404 page not found")


def test_from_2_6_8_on_a_pause_has_a_ticket_and_a_collection() -> None:
    with contract_server("2.6.20") as server:
        _, first = get(server, "pause?pause_seconds=60&collection_id=5")
        _, second = get(server, "pause?pause_seconds=60&collection_id=5")
        assert (server.gc.paused(5), server.gc.paused(7), first["ticket"] != second["ticket"]) == (True, False, True)
        get(server, f"resume?ticket={first['ticket']}&collection_id=5")
        assert server.gc.paused(5)
        get(server, f"resume?ticket={second['ticket']}&collection_id=5")
        assert not server.gc.paused(5)
