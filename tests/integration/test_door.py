"""The door in front of Milvus B answers as a newer server would, and what goes through it is really imported."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import grpc
import httpx
import pytest
from pymilvus import MilvusClient
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.store import ObjectStore
from tests.door.door import Door, door
from tests.door.jobs import Job
from tests.integration import data
from tests.integration.clusters import Cluster, listing
from tests.integration.test_official_backups import move_deletes_into_l0

SOURCE = data.docs("door_source", "door_db", partitions=["second"], options={"num_shards": 2})
AUTHORIZATION = {"Authorization": "Bearer root:Milvus"}
METADATA = [("authorization", base64.b64encode(b"root:Milvus").decode()), ("dbname", "door_db")]
BACKUP = "backup/door/binlogs"


@pytest.fixture(scope="module")
def opened(b: Cluster) -> Iterator[Door]:
    with door(b.milvus, b.s3) as opened:
        yield opened


@pytest.fixture(scope="module")
def pairs(b: Cluster) -> Iterator[dict[str, list[list[str]]]]:
    """Pairs of a collection's segments in its backup, by partition: some with deletes, most without."""
    b.create(SOURCE, range(60))
    SOURCE.insert(b.client("door_db"), range(60, 90))
    SOURCE.insert(b.client("door_db"), range(100, 120), "second")
    b.client("door_db").delete("door_source", ids=[1, 2, 3])
    b.backup("door", "door_db.door_source")
    found: dict[str, list[list[str]]] = {}
    for partition_id, name in b.server.partitions(SOURCE.name):
        below = {key.rsplit("/", 2)[0] for key in listing(b.s3, b.milvus.bucket, f"{BACKUP}/insert_log/") if f"/{partition_id}/" in key}
        inserts = sorted({key.rpartition("/")[0] + "/" for key in below})
        deletes = listing(b.s3, b.milvus.bucket, f"{BACKUP}/delta_log/")
        for insert in inserts:
            delta = insert.replace("insert_log", "delta_log")
            found.setdefault(name, []).append([insert, *([delta] if any(key.startswith(delta) for key in deletes) else [])])
    yield found
    b.drop(SOURCE.name)
    ObjectStore(b.backups).delete(listing(b.s3, b.milvus.bucket, "backup/door"))


@dataclass
class Rest:
    """Raw requests to the door."""

    client: httpx.Client

    def __call__(self, path: str, body: Any, **headers: str) -> dict[str, Any]:
        response = self.client.post(path, json=body, headers={"DB-Name": "door_db", **headers})
        assert response.status_code == 200
        return dict(response.json())

    def ask(self, path: str, body: Any) -> dict[str, Any]:
        answer = self(path, body)
        assert answer["code"] == 0, answer
        return dict(answer["data"])

    def refusal(self, path: str, body: Any) -> tuple[int, str]:
        answer = self(path, body)
        assert "data" not in answer
        return answer["code"], answer["message"]

    def import_all(self, collection: str, pairs: dict[str, list[list[str]]], **options: str) -> list[dict[str, Any]]:
        """Import into a collection's partitions and return how the jobs ended."""
        ids = [self.ask("jobs/import/create", job_of(collection, name, files, **options))["jobId"] for name, files in pairs.items()]
        data.wait_until(lambda: all(self.ask("jobs/import/describe", {"jobId": one})["state"] in ("Completed", "Failed") for one in ids))
        return [self.ask("jobs/import/describe", {"jobId": one}) for one in ids]


def job_of(collection: str, partition: str, files: list[list[str]], **options: str) -> dict[str, Any]:
    return {"collectionName": collection, "partitionName": partition, "files": files, "options": {"backup": "true", **options}}


@pytest.fixture
def rest(opened: Door) -> Iterator[Rest]:
    with httpx.Client(base_url=f"http://{opened.host}:{opened.port}/v2/vectordb/", headers=AUTHORIZATION, trust_env=False) as client:
        yield Rest(client)


@pytest.fixture
def target(b: Cluster) -> Iterator[CollectionName]:
    name = CollectionName("door_db", "door_target")
    b.create(data.docs(name.collection, name.database, partitions=["second"]))
    yield name
    b.drop(name)


@pytest.fixture
def stub(opened: Door) -> Iterator[Any]:
    with grpc.insecure_channel(f"{opened.host}:{opened.port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield milvus_pb2_grpc.MilvusServiceStub(channel)  # type: ignore[no-untyped-call]


# ---- gRPC ------------------------------------------------------------------------------------------------------------------------


def test_over_grpc_the_server_calls_itself_newer(opened: Door, stub: Any) -> None:
    assert stub.GetVersion(milvus_pb2.GetVersionRequest(), metadata=METADATA).version == "v2.5.10"
    assert stub.Connect(milvus_pb2.ConnectRequest(), metadata=METADATA).server_info.build_tags == "v2.5.10"
    client = MilvusClient(f"http://{opened.host}:{opened.port}", user="root", password="Milvus", db_name="default")
    assert client.get_server_version() == "v2.5.10"
    client.close()


def test_imports_over_grpc_are_closed_and_never_reach_the_server(b: Cluster, opened: Door, stub: Any) -> None:
    for rpc, request in (
        ("Import", milvus_pb2.ImportRequest(collection_name="nothing")),
        ("GetImportState", milvus_pb2.GetImportStateRequest(task=1)),
        ("ListImportTasks", milvus_pb2.ListImportTasksRequest()),
    ):
        before = opened.requests[rpc]
        with pytest.raises(grpc.RpcError) as caught:
            getattr(stub, rpc)(request, metadata=METADATA)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert opened.requests[rpc] == before + 1
    assert b.server.databases()  # 2.3.5 is alive


def test_a_database_is_described_and_everything_else_passes(pairs: object, stub: Any, b: Cluster) -> None:
    answer = stub.DescribeDatabase(milvus_pb2.DescribeDatabaseRequest(db_name="door_db"), metadata=METADATA)
    assert (answer.status.code, answer.db_name, list(answer.properties)) == (0, "door_db", [])
    assert answer.dbID != stub.DescribeDatabase(milvus_pb2.DescribeDatabaseRequest(db_name="default"), metadata=METADATA).dbID == 1
    missing = stub.DescribeDatabase(milvus_pb2.DescribeDatabaseRequest(db_name="nowhere"), metadata=METADATA)
    assert (missing.status.code, missing.status.reason) == (800, "database not found[database=nowhere]")
    described = stub.DescribeCollection(milvus_pb2.DescribeCollectionRequest(collection_name="door_source"), metadata=METADATA)
    assert described == b.server.describe(SOURCE.name)


# ---- importing -------------------------------------------------------------------------------------------------------------------


def test_what_a_rest_job_imports_is_what_was_backed_up(
    b: Cluster, opened: Door, rest: Rest, target: CollectionName, pairs: dict[str, list[list[str]]]
) -> None:
    """Also with deletes, into fewer shards, and by few imports: all of a partition at once, but for what was not asked for."""
    assert {len(pair) for pair in pairs["_default"]} == {1, 2}
    jobs = rest.import_all(target.collection, pairs, skip_disk_quota_check="true")
    for job, (partition, files) in zip(jobs, pairs.items(), strict=True):
        assert (job["state"], job["progress"], job["collectionName"]) == ("Completed", 100, target.collection)
        assert job["importedRows"] == job["totalRows"] == sum(detail["importedRows"] for detail in job["details"])
        assert job["importedRows"] == {"_default": 87, "second": 20}[partition]
        assert job["completeTime"]
        segments = {f"[{' '.join(path + path.split('/')[-2] + '/' for path in paths)}]" for paths in files}
        assert {detail["fileName"] for detail in job["details"]} == segments
    assert len(opened.jobs.imports_of(jobs[0]["jobId"])) == 1
    assert b.contents(target) == b.contents(SOURCE.name)


def test_a_job_reads_nothing_but_its_pairs(b: Cluster, rest: Rest, target: CollectionName, pairs: dict[str, list[list[str]]]) -> None:
    """Deletes that are not named do not count, and neighbours are not read."""
    with_deletes = next(pair for pair in pairs["_default"] if len(pair) == 2)
    (job,) = rest.import_all(target.collection, {"_default": [with_deletes[:1]]})
    segment_id = int(with_deletes[0].split("/")[-2])
    rows = next(segment.rows for segment in b.server.segments(SOURCE.name) if segment.segment_id == segment_id)
    assert job["importedRows"] == rows
    assert data.count(b.contents(target)) == rows


def test_what_a_job_reads_is_told_when_it_has_begun(rest: Rest, target: CollectionName, pairs: dict[str, list[list[str]]]) -> None:
    """The second of two jobs waits for the first; nothing tells meanwhile which job it is but its collection."""
    for _ in range(5):  # on a busy machine the first may be done before anybody asks
        first, second = (rest.ask("jobs/import/create", job_of(target.collection, "second", pairs["second"]))["jobId"] for _ in range(2))
        waiting = rest.ask("jobs/import/describe", {"jobId": second})
        if waiting["state"] == "Pending":
            break
        data.wait_until(lambda second=second: rest.ask("jobs/import/describe", {"jobId": second})["state"] == "Completed")  # type: ignore[misc]
    assert (waiting["state"], waiting["details"], waiting["fileSize"], waiting["totalRows"]) == ("Pending", [], 0, 0)
    data.wait_until(lambda: rest.ask("jobs/import/describe", {"jobId": second})["state"] == "Completed")
    done = rest.ask("jobs/import/describe", {"jobId": first})
    assert (done["state"], done["fileSize"] > 0, len(done["details"])) == ("Completed", True, len(pairs["second"]))


def test_deletes_in_l0_segments_are_folded_for_a_server_that_imports_none(b: Cluster, pairs: object) -> None:
    """As 3.0 is: the provider restores over REST, with the deletes where 2.3.5 finds them."""
    name = CollectionName("door_db", "door_folded")
    with door(b.milvus, b.s3, "v3.0.0") as newest:
        through = replace(b, door=newest)
        b.backup("door_l0", "door_db.door_source")
        assert move_deletes_into_l0(b, "door_l0", everywhere=True) > 0
        through.restore("door_l0", rename={str(SOURCE.name): str(name)}, load="never")
        assert newest.requests["jobs/import/create"] == 2
        assert all(path for body in newest.created for paths in body["files"] for path in paths)
        through.server.close()
    assert b.contents(name) == b.contents(SOURCE.name)
    b.drop(name)


def test_a_job_that_fails_says_why(b: Cluster, rest: Rest, pairs: dict[str, list[list[str]]]) -> None:
    fields = [*SOURCE.fields[:2], {**SOURCE.fields[2], "dim": 8}]
    other = b.create(data.Collection(CollectionName("door_db", "door_other"), fields, SOURCE.row, dynamic=True))
    (job,) = rest.import_all("door_other", {"_default": pairs["second"]})
    assert (job["state"], job["progress"], job["importedRows"]) == ("Failed", 0, 0)
    assert "dimension" in job["reason"]
    (record,) = rest.ask("jobs/import/list", {"collectionName": "door_other"})["records"]
    assert record == {key: job[key] for key in ("jobId", "collectionName", "state", "progress", "reason")}
    b.drop(other.name)


def test_jobs_are_listed_by_collection_until_they_are_forgotten(
    opened: Door, rest: Rest, target: CollectionName, pairs: dict[str, list[list[str]]]
) -> None:
    job = rest.ask("jobs/import/create", job_of(target.collection, "second", pairs["second"]))["jobId"]
    assert [record["jobId"] for record in rest.ask("jobs/import/list", {"collectionName": target.collection})["records"]] == [job]
    assert job in [record["jobId"] for record in rest.ask("jobs/import/list", {})["records"]]
    assert rest.ask("jobs/import/list", {"collectionName": SOURCE.name.collection})["records"] == []
    data.wait_until(lambda: rest.ask("jobs/import/get_progress", {"jobId": job})["state"] == "Completed")
    opened.jobs.forget()
    assert rest.refusal("jobs/import/describe", {"jobId": job}) == (2100, f"import job does not exist, jobID={job}: importing data failed")
    assert rest.ask("jobs/import/list", {})["records"] == []


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda job: job.update(options={"backup": True}), 1801, "cannot unmarshal bool into Go struct field .options"),
        (lambda job: job.update(options={"backup": "true", "end_ts": 7}), 1801, "cannot unmarshal number"),
        (lambda job: job.update(files="x"), 1801, "cannot unmarshal string into Go struct field .files"),
        (lambda job: job.pop("files"), 1802, "'Files' failed on the 'required' tag"),
        (lambda job: job.pop("collectionName"), 1802, "'CollectionName' failed on the 'required' tag"),
        (lambda job: job.update(collectionName="nowhere"), 100, "collection not found[database=door_db][collection=nowhere]"),
        (lambda job: job.update(partitionName=""), 1100, "partition not specified"),
        (lambda job: job.update(partitionName="nowhere"), 200, "partition not found[partition=nowhere]"),
        (lambda job: job.update(files=[]), 1100, "import request is empty"),
        (lambda job: job.update(files=[["a/", "b/", "c/"]]), 2100, "too many input paths for binlog import"),
        (lambda job: job.update(files=[["a/"], ["b/", "c/"]]), 2100, 'no binlog to import, input=[paths:"a/" paths:"b/" paths:"c/"]'),
        (lambda job: job.update(options={}), 2100, "unexpected file type"),
        (lambda job: job["options"].update(l0_import="true"), 2100, "l0 import is disabled"),
        (lambda job: job["options"].update(end_ts="1700000000000"), 2100, "end_ts is not a valid hybrid timestamp, value=1700000000000"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_a_request_that_a_newer_server_refuses_is_refused(
    opened: Door, rest: Rest, pairs: dict[str, list[list[str]]], change: Change, code: int, message: str
) -> None:
    job = job_of(SOURCE.name.collection, "second", pairs["second"])
    change(job)
    found = rest.refusal("jobs/import/create", job)
    assert found[0] == code
    assert message in found[1]
    assert rest.ask("jobs/import/list", {"collectionName": SOURCE.name.collection})["records"] == []


def test_there_is_a_limit_of_unfinished_jobs(
    opened: Door, rest: Rest, target: CollectionName, pairs: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.jobs.most = 1
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Job, "refresh", lambda *_: None)  # nobody sees it end, however long the second request takes
            first = rest.ask("jobs/import/create", job_of(target.collection, "second", pairs["second"]))["jobId"]
            code, message = rest.refusal("jobs/import/create", job_of(target.collection, "second", pairs["second"]))
        assert (code, message.partition(",")[0]) == (2100, "The number of jobs has reached the limit")
        data.wait_until(lambda: rest.ask("jobs/import/describe", {"jobId": first})["state"] == "Completed")
        rest.import_all(target.collection, {"second": pairs["second"]})
    finally:
        opened.jobs.most = 1024


# ---- the rest --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("authorization", ["", "Bearer root:wrong", "Bearer nobody:Milvus", "Bearer token", "Basic !"])
def test_who_is_not_known_gets_401(opened: Door, authorization: str) -> None:
    url = f"http://{opened.host}:{opened.port}/v2/vectordb/jobs/import/list"
    response = httpx.post(url, json={}, headers={"Authorization": authorization}, trust_env=False)
    assert (response.status_code, response.json()) == (401, {"code": 1800, "message": "user hasn't authenticated"})


def test_segments_are_described_as_they_lie_in_the_bucket(b: Cluster, rest: Rest, pairs: object) -> None:
    cid, listed = b.server.describe(SOURCE.name).collectionID, b.server.segments(SOURCE.name)
    answer = rest.ask("segments/describe", {"collectionID": cid, "segmentIDs": [segment.segment_id for segment in listed]})
    keys = {"/".join(key.split("/")[2:]) for key in listing(b.s3, b.milvus.bucket, "deep/er/") if f"/{cid}/" in key}
    found = set()
    for segment, described in zip(listed, answer["segmentInfos"], strict=True):
        assert (described["segmentID"], described["numRows"], described["state"]) == (segment.segment_id, segment.rows, 4)
        place = f"{cid}/{segment.partition_id}/{segment.segment_id}"
        for kind in ("insert", "delta", "stats"):
            for logs in described[f"{kind}Logs"]:
                field = "" if kind == "delta" else f"{logs['fieldID']}/"
                found |= {f"{kind}_log/{place}/{field}{log}" for log in logs["logIDs"]}
    assert found == {key for key in keys if key.startswith(("insert_log", "delta_log", "stats_log"))}
    assert any(key.startswith("delta_log") for key in found)
    code, message = rest.refusal("segments/describe", {"collectionID": cid, "segmentIDs": [1]})
    assert (code, message) == (600, "segment not found[segment=1]")


def test_what_a_release_does_not_have_is_not_found(b: Cluster, pairs: object) -> None:
    with door(b.milvus, b.s3, "v2.4.5") as older:
        client = httpx.Client(base_url=f"http://{older.host}:{older.port}/v2/vectordb/", headers=AUTHORIZATION, trust_env=False)
        with client:
            for path in ("jobs/import/describe", "segments/describe", "jobs/import/commit"):
                assert (client.post(path, json={"jobId": "1"}).status_code, older.requests[path]) == (404, 1)
            answer = client.post("jobs/import/get_progress", json={"jobId": "1"}).json()
            assert answer == {"code": 2100, "message": "import job does not exist, jobID=1: importing data failed"}


def test_garbage_collection_is_resumed_by_ticket(b: Cluster) -> None:
    with door(b.milvus, b.s3, "v2.6.8") as newer:
        url = f"http://{newer.host}:{newer.management_port}/management/datacoord/garbage_collection"
        ticket = httpx.get(f"{url}/pause", params={"pause_seconds": "60"}, trust_env=False).json()["ticket"]
        answers = [httpx.get(f"{url}/resume", params={"ticket": one}, trust_env=False).status_code for one in (ticket, ticket, "")]
    assert answers == [200, 500, 500]


def test_garbage_collection_is_paused_and_resumed(opened: Door) -> None:
    url = f"http://{opened.host}:{opened.management_port}/management/datacoord/garbage_collection"
    assert httpx.get(f"{url}/pause", params={"pause_seconds": "60"}, trust_env=False).json() == {"msg": "OK"}
    assert httpx.get(f"{url}/pause", params={"pause_seconds": "x"}, trust_env=False).status_code == 500
    assert httpx.get(f"{url}/resume", trust_env=False).json() == {"msg": "OK"}
    assert httpx.get(f"{url}/collect", trust_env=False).status_code == 404
    assert opened.gc_calls == [("pause", {"pause_seconds": "60"}), ("pause", {"pause_seconds": "x"}), ("resume", {})]
