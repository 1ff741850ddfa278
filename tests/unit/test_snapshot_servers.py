"""Snapshots go out of one strict server and into another; a server that cannot is told apart before anything is made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pymilvus.grpc_gen import milvus_pb2

from airflow_provider_milvus_backup.core import snapshot_plan, snapshots
from airflow_provider_milvus_backup.core.capabilities import Capability
from airflow_provider_milvus_backup.core.ends import Ends
from airflow_provider_milvus_backup.core.errors import (
    BackupDamaged,
    ConfigError,
    ServerError,
    ServerUnreachable,
    UnsupportedServer,
)
from airflow_provider_milvus_backup.core.imports import JobState
from airflow_provider_milvus_backup.core.meta import Backup, Collection, SnapshotBackup
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from airflow_provider_milvus_backup.core.server import MilvusServer
from airflow_provider_milvus_backup.core.settings import MilvusAddress
from airflow_provider_milvus_backup.core.snapshot_plan import SnapshotPlace
from airflow_provider_milvus_backup.core.store import ObjectStore, StoredObject
from tests.contract import shapes
from tests.contract.buckets import MemoryBucket
from tests.contract.refusals import Refusal
from tests.contract.servers import ContractServer, contract_server
from tests.unit.snapshot_servers import DOCS, RESTORED, TARGET, ended, export, filled, left, refusing, running


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "DROP_PAUSE", 0.02)
    monkeypatch.setattr(snapshots, "LONGEST_POLL", 0.05)


# ---- whether it can ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "works"), [("2.4.24", False), ("2.6.20", False), ("3.0.0", False), ("3.0.1", True)])
def test_a_server_is_asked_whatever_its_version_is_and_nothing_changes(version: str, works: bool) -> None:
    with running(version) as (contract, server):
        server.capabilities.learn(Capability.SNAPSHOTS, not works)
        assert snapshots.probe(server) is works
        assert server.can(Capability.SNAPSHOTS) is works
        assert contract.model.exports == contract.model.restores == {}


def test_who_may_not_export_is_told_so_only_by_a_server_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as (contract, server):
        monkeypatch.setattr(contract.model, "snapshot_job", refusing(Refusal(65535, "PrivilegeExportSnapshot: permission deny to reader")))
        assert snapshots.probe(server)


def test_a_server_that_is_away_is_not_taken_for_one_that_cannot() -> None:
    patience = Patience()
    with contract_server("3.0.1") as contract:
        server = MilvusServer(MilvusAddress(contract.host, contract.port), patience)
        assert server.can(Capability.SNAPSHOTS)
    patience.deadline = time.time() + 0.5
    with pytest.raises((ServerUnreachable, TimeoutError)):
        snapshots.probe(server)
    assert server.can(Capability.SNAPSHOTS)
    server.close()


@pytest.mark.parametrize("version", ["2.6.20", "3.0.0"])
def test_the_refusal_names_the_release_that_is_needed_and_the_one_that_is_there(version: str) -> None:
    with (
        running(version) as (_, server),
        pytest.raises(UnsupportedServer, match=rf"^format='snapshot' needs .* 3\.0\.1 or newer; .* version v{version} .* Leave it out$"),
    ):
        snapshots.check_server(server, "format='snapshot'", "Leave it out")


def test_a_pymilvus_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimpleNamespace(**{name: found for name, found in vars(milvus_pb2).items() if name != "GetExportSnapshotStateRequest"})
    with running() as (_, server):
        assert server.version == "v3.0.1"
        monkeypatch.setattr(snapshots, "messages", lambda: old)
        with pytest.raises(
            UnsupportedServer, match=r"installed pymilvus [0-9.]+ does not know GetExportSnapshotState.* install pymilvus 3\.0\.2"
        ):
            snapshots.check_server(server, "format='snapshot'", "")


def test_a_server_that_knows_the_request_and_does_nothing_cannot() -> None:
    with running("3.0.0") as (contract, server):
        filled(contract)
        with pytest.raises(UnsupportedServer, match=r"version v3\.0\.0, does not know how to export default\.docs"):
            export(contract, server)
        with pytest.raises(UnsupportedServer, match=r"version v3\.0\.0, does not know how to restore a snapshot"):
            snapshots.restore_snapshot(server, RESTORED, TARGET)
        assert left(contract) == []


# ---- out and in ----------------------------------------------------------------------------------------------------------------


def test_rows_deletes_and_indexes_arrive_in_another_cluster_under_the_name_that_is_built() -> None:
    with running() as (source, one), running() as (target, two):
        number = filled(source)
        rows, before = source.model.rows(DOCS), source.model.next_ts()
        bundle, moment = export(source, one)
        vault = source.model.buckets["vault"]
        assert before < moment < source.model.next_ts()
        assert snapshot_plan.collection_of(bundle.metadata_path) == number
        data = [len(vault.get(key)) for key in vault.list("backups/nightly/bundle/") if "/snapshots/" not in key]
        assert (bundle.total_files, bundle.total_bytes) == (len(data), sum(data))
        assert left(source) == []

        target.model.buckets["vault"] = vault
        job = snapshots.restore_snapshot(two, RESTORED, SnapshotPlace(f"s3://vault/backups/nightly/{bundle.metadata_path}"))
        status = ended(two, job)
        assert (status.state, status.rows, status.progress) == (JobState.COMPLETED, 5, 100)
        assert status.rows == sum(segment.rows for segment in two.segments(RESTORED))
        two.rename_collection(RESTORED, "docs")
        assert target.model.rows(DOCS) == rows
        assert [index.name for index in target.model.indexes(DOCS)] == ["v"]


def test_what_an_earlier_try_has_left_under_the_name_is_dropped_first() -> None:
    with running() as (contract, server):
        filled(contract)
        uri = SnapshotPlace(f"s3://vault/backups/nightly/{export(contract, server)[0].metadata_path}")
        half = contract.model.create_collection(RESTORED, shapes.schema(RESTORED.collection)).id
        assert ended(server, snapshots.restore_snapshot(server, RESTORED, uri)).state is JobState.COMPLETED
        assert server.collection_id(RESTORED) not in (None, half)
        assert contract.model.rows(RESTORED) == contract.model.rows(DOCS)


def test_a_restore_that_fails_says_why_and_one_without_a_record_is_unknown() -> None:
    with running() as (contract, server):
        filled(contract)
        path, vault = export(contract, server)[0].metadata_path, contract.model.buckets["vault"]
        broken = next(key for key in vault.list("backups/nightly/bundle/") if "/insert_log/" in key)
        vault.put(broken, b"no binlog")
        status = ended(server, snapshots.restore_snapshot(server, RESTORED, SnapshotPlace(f"s3://vault/backups/nightly/{path}")))
        assert status.state is JobState.FAILED
        assert status.reason
        lost = snapshots.snapshot_state(server, 4711, RESTORED)
        assert (lost.job_id, lost.state) == (4711, JobState.UNKNOWN)


# ---- a restore whose answer is lost --------------------------------------------------------------------------------------------


@dataclass
class Slow:
    """A server that makes the collection and does not answer in time; ``jobs`` is what it lists, one answer after the other."""

    jobs: list[list[Any]]
    answers: list[ServerError | int]
    there: bool = False
    patience: Patience = field(default_factory=Patience)
    address: str = "here"
    version: str = "v3.0.1"
    asked: list[str] = field(default_factory=list)

    def collection_id(self, name: CollectionName) -> int | None:
        return 7 if self.there else None

    def drop_collection(self, name: CollectionName) -> None:
        self.asked.append("drop")
        self.there = False

    def _call(self, rpc: str, request: Any, *_: Any, **__: Any) -> Any:
        self.asked.append(rpc)
        if rpc == "ListRestoreSnapshotJobs":
            return SimpleNamespace(jobs=self.jobs.pop(0) if self.jobs else [])
        answer = self.answers.pop(0)
        self.there = True
        if isinstance(answer, ServerError):
            raise answer
        return SimpleNamespace(job_id=answer)


def job(number: int, state: int = 2, name: str = RESTORED.collection) -> Any:
    return SimpleNamespace(job_id=number, collection_name=name, state=state)


def restore(server: Slow) -> int:
    return snapshots.restore_snapshot(cast("MilvusServer", server), RESTORED, TARGET)


def test_a_job_is_found_by_its_collection_when_milvus_takes_longer_than_is_waited_for() -> None:
    server = Slow([[job(1, name="other"), job(2, state=4)], [job(3)]], [ServerUnreachable("no answer")])
    assert restore(server) == 3
    assert server.asked == ["RestoreExternalSnapshot", "ListRestoreSnapshotJobs", "ListRestoreSnapshotJobs"]


def test_a_request_that_is_refused_because_the_one_before_it_has_arrived_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Slow([[], [job(5)]], [ServerUnreachable("no answer"), ServerError("collection already exists")])
    monkeypatch.setattr(server, "collection_id", lambda _: None)
    assert restore(server) == 5
    assert server.asked.count("drop") == 0


def test_a_refusal_of_the_first_request_is_raised() -> None:
    server = Slow([], [ServerError("collection already exists")])
    with pytest.raises(ServerError, match="already exists"):
        restore(server)
    assert server.asked == ["RestoreExternalSnapshot"]


# ---- before a restore ----------------------------------------------------------------------------------------------------------


@dataclass
class Vault:
    """What a plan needs of an ObjectStore, in front of a bucket in memory."""

    bucket: MemoryBucket = field(default_factory=MemoryBucket)
    endpoint: str = "http://minio:9000"
    name: str = "vault"
    region: str = "us-east-1"

    @property
    def location(self) -> Any:
        return SimpleNamespace(root_path="backups", bucket=self.name, label="", session=lambda: self)

    def objects(self, prefix: str) -> Sequence[StoredObject]:
        return [StoredObject(key, len(self.bucket.get(key)), "") for key in self.bucket.list(f"{prefix}/")]


def planned(contract: ContractServer, server: MilvusServer, bundle: SnapshotBackup, **more: Any) -> tuple[Backup, Ends]:
    docs = Collection(contract.model.collection(DOCS).id, DOCS, {"name": "docs", "fields": []}, 2, 0, [], snapshot=bundle)
    vault = Vault(contract.model.buckets["vault"], **more)
    ends = SimpleNamespace(server=server, backups=cast("ObjectStore", vault), milvus_store=cast("ObjectStore", Vault(name="a-bucket")))
    return Backup("an-id", "nightly", "v3.0.1", [docs], format="snapshot"), cast("Ends", ends)


def test_a_restore_is_refused_before_anything_is_made_where_it_could_not_end_well() -> None:
    with running() as (contract, server):
        filled(contract)
        bundle, _ = export(contract, server)
        backup, ends = planned(contract, server, bundle)
        snapshots.check_snapshot_restore(backup, backup.collections, RestoreOptions(), ends)
        assert snapshots.source(ends, "nightly", backup.collections[0]).uri == f"s3://vault/backups/nightly/{bundle.metadata_path}"
        assert snapshots.target(ends.milvus_store, ends.backups, "nightly") == TARGET
        with pytest.raises(ConfigError, match="meta_only"):
            snapshots.check_snapshot_restore(backup, backup.collections, RestoreOptions(meta_only=True), ends)
        _, elsewhere = planned(contract, server, bundle, endpoint="https://s3.eu-west-1.amazonaws.com")
        with pytest.raises(ConfigError, match="one object store only"):
            snapshots.check_snapshot_restore(backup, backup.collections, RestoreOptions(), elsewhere)
        vault = contract.model.buckets["vault"]
        for key in [key for key in vault.list("backups/nightly/bundle/") if "/insert_log/" in key]:
            vault.delete(key)
        with pytest.raises(BackupDamaged, match="incomplete"):
            snapshots.check_snapshot_restore(backup, backup.collections, RestoreOptions(), ends)
        assert contract.requests["RestoreExternalSnapshot"] == 0


@pytest.mark.parametrize("version", ["2.6.20", "3.0.0"])
def test_a_server_without_snapshots_is_told_apart_before_anything_is_made(version: str) -> None:
    bundle = SnapshotBackup("bundle/snapshots/1/metadata/2.json", 1, 1)
    with running(version) as (contract, server):
        filled(contract)
        backup, ends = planned(contract, server, bundle)
        with pytest.raises(UnsupportedServer, match=rf"backup 'nightly' is in snapshot format and needs .*3\.0\.1.* version v{version}"):
            snapshots.check_snapshot_restore(backup, backup.collections, RestoreOptions(), ends)
        assert contract.requests["RestoreExternalSnapshot"] == 0
