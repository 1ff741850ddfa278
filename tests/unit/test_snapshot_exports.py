"""No snapshot of an export is left behind in Milvus, whatever happens, and nobody else's is dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import snapshots
from airflow_provider_milvus_backup.core.errors import (
    Cancelled,
    ServerError,
    SourceChanged,
    TakenOver,
)
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.snapshot_plan import SnapshotPlace
from tests.contract import shapes
from tests.contract.refusals import invalid, unexpected
from tests.contract.servers import ContractServer
from tests.contract.snapshots import SnapshotJob
from tests.unit.snapshot_servers import DOCS, TARGET, Lines, export, filled, left, refusing, running


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "DROP_PAUSE", 0.02)
    monkeypatch.setattr(snapshots, "LONGEST_POLL", 0.05)


# ---- no snapshot is left behind ------------------------------------------------------------------------------------------------


def failing(contract: ContractServer, reason: str) -> Callable[..., Any]:
    def fail(jobs: dict[int, SnapshotJob], number: int) -> tuple[SnapshotJob, int]:
        if number not in jobs:
            raise invalid("snapshot job not found")
        return replace(jobs[number], reason=reason), 4

    return fail


def test_an_export_that_fails_leaves_no_snapshot_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    place = SnapshotPlace(TARGET.uri, '{"extfs":{"cloud_provider":"aws","access_key_value":"s3cr3t"}}', ("s3cr3t", "AKIA-x"))
    with running() as (contract, server):
        filled(contract)
        monkeypatch.setattr(contract.model, "snapshot_job", failing(contract, "access denied with AKIA-x s3cr3t"))
        with pytest.raises(ServerError, match=r"could not export default\.docs to s3://vault/.*: access denied with … …") as caught:
            export(contract, server, place=place)
        assert caught.value.retryable
        assert left(contract) == []
        monkeypatch.setattr(contract.model, "export_snapshot", refusing(invalid(f"bad external_spec {place.external_spec}")))
        with pytest.raises(ServerError, match="bad external_spec") as caught:
            export(contract, server, place=place)
        assert "s3cr3t" not in "".join(map(str, (caught.value, caught.value.__cause__, repr(caught.value))))
        assert left(contract) == []


def test_a_kill_ends_the_export_and_drops_the_snapshot_when_milvus_lets_go_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = Patience()
    with running(patience=patience) as (contract, server):
        filled(contract)
        contract.model.snapshot_seconds, asked = 3600.0, contract.model.snapshot_job

        def kill(jobs: dict[int, SnapshotJob], number: int) -> tuple[SnapshotJob, int]:
            found = asked(jobs, number)
            contract.model.snapshot_seconds = 0.05  # it runs when it is looked at, and not for long
            patience.stop.set()
            return found

        monkeypatch.setattr(contract.model, "snapshot_job", kill)
        monkeypatch.setattr(snapshots, "DROP_PAUSE", 0.2)
        with pytest.raises(Cancelled, match=r"Milvus was exporting default\.docs"):
            export(contract, server)
        assert left(contract) == []


def test_a_snapshot_that_cannot_be_dropped_is_named_with_what_to_do_and_the_backup_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Lines()
    with running() as (contract, server):
        filled(contract)
        monkeypatch.setattr(contract.model, "drop_snapshot", DropsOnce(contract))
        assert export(contract, server, log)[0].total_files
        assert contract.requests["DropSnapshot"] == 1 + snapshots.DROP_TRIES
    assert [line for line in log.lines if "'mbk_nightly' of default.docs is left in Milvus" in line and "by hand" in line]


class DropsOnce:
    """Drops what is there at first, and nothing afterwards."""

    def __init__(self, contract: ContractServer) -> None:
        self.first, self.drop = True, contract.model.drop_snapshot

    def __call__(self, name: CollectionName, snapshot: str) -> None:
        if not self.first:
            raise unexpected("etcd is away")
        self.first = False
        self.drop(name, snapshot)


def test_the_snapshot_of_an_earlier_try_gives_way_also_when_its_export_still_runs() -> None:
    with running() as (contract, server):
        filled(contract)
        contract.model.create_snapshot(DOCS, "mbk_nightly")
        assert export(contract, server)[0].total_files
        contract.model.create_snapshot(DOCS, "mbk_nightly")
        contract.model.snapshot_seconds = 0.1
        contract.model.export_snapshot(DOCS, "mbk_nightly", TARGET.uri)
        contract.model.insert(DOCS, [shapes.row(9)])
        contract.model.flush(DOCS)
        bundle, _ = export(contract, server)
        assert left(contract) == []
        document = contract.model.buckets["vault"].get(f"backups/nightly/{bundle.metadata_path}")
        assert sum(len(segment.rows) for segment in contract.model.collection(DOCS).segments) == 6
        assert document.count(b'"vchannel"') == len(contract.model.collection(DOCS).segments)


def test_another_snapshot_of_the_collection_stays() -> None:
    with running() as (contract, server):
        filled(contract)
        contract.model.create_snapshot(DOCS, "mine")
        export(contract, server)
        assert left(contract) == ["mine"]


def test_who_has_lost_the_lease_does_not_drop_what_another_run_has_made(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = Patience()
    with running(patience=patience) as (contract, server):
        filled(contract)
        contract.model.snapshot_seconds, asked = 3600.0, contract.model.snapshot_job

        def taken_over(jobs: dict[int, SnapshotJob], number: int) -> tuple[SnapshotJob, int]:
            patience.failure = TakenOver("another run goes on")
            return asked(jobs, number)

        monkeypatch.setattr(contract.model, "snapshot_job", taken_over)
        with pytest.raises(TakenOver):
            export(contract, server)
        assert left(contract) == ["mbk_nightly"]


def test_a_snapshot_that_somebody_else_makes_in_between_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as (contract, server):
        filled(contract)
        make = contract.model.create_snapshot

        def late(*args: Any) -> Any:
            make(*args)
            return make(*args)

        monkeypatch.setattr(contract.model, "create_snapshot", late)
        with pytest.raises(ServerError, match="already exists"):
            export(contract, server)
        assert left(contract) == ["mbk_nightly"]


def test_a_collection_that_was_made_anew_meanwhile_is_another_one() -> None:
    with running() as (contract, server):
        number = filled(contract)
        contract.model.drop_collection(DOCS)
        filled(contract)
        with pytest.raises(SourceChanged, match=r"default\.docs was dropped and created anew"):
            snapshots.export_snapshot(server, DOCS, number, "nightly", TARGET, Reporter(Lines()))
        assert left(contract) == []
