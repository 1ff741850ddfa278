"""Looking at freshness, on a strict Milvus and a store: what it costs, what is nobody's collection, and what is said when one is away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.errors import AuthError, ConfigError, ServerUnreachable, StorageDenied
from airflow_provider_milvus_backup.core.freshness import FRESH, LATE, MISSING, NEW, FreshnessPolicy, FreshnessReport
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.server import MilvusServer
from airflow_provider_milvus_backup.core.settings import MilvusAddress
from airflow_provider_milvus_backup.core.store import ObjectStore
from airflow_provider_milvus_backup.core.watching import Watch
from benchmarks.catalog import backup
from benchmarks.collection import BACKUPS
from tests.contract import shapes
from tests.contract.servers import ContractServer
from tests.official_backups import rewrite, synthetic
from tests.unit.deletion_store import DENIED
from tests.unit.snapshot_servers import running
from tests.unit.test_catalog_looking import Refusing, serving
from tests.unit.test_lease import Lines

DOCS = CollectionName("default", "docs")
#: The store says that it is so many years after the backups of :mod:`benchmarks.catalog` were made.
YEARS = "9y"


@dataclass
class Place:
    contract: ContractServer
    server: MilvusServer
    store: ObjectStore
    served: Refusing
    log: Lines

    def watch(self, max_age: str = "26h", remembered: Any = None, **policy: Any) -> Watch:
        return Watch(self.store, self.server, FreshnessPolicy(max_age, **policy), "default", Reporter(self.log), remembered)

    def looked(self, max_age: str = "26h", **policy: Any) -> FreshnessReport:
        return self.watch(max_age, **policy).look()

    def create(self, *names: CollectionName, old: bool = True) -> None:
        for name in names:
            made = self.contract.model.create_collection(name, shapes.schema(name.collection), shards=1)
            if old:
                made.created = int(datetime(2010, 1, 1, tzinfo=timezone.utc).timestamp() * 1000) << 18


@contextmanager
def place(*backups: Mapping[str, bytes], refused: Any = None) -> Iterator[Place]:
    with serving(*backups, refused=refused) as (store, served), running("3.0.0") as (contract, server):
        yield Place(contract, server, store, served, Lines())


def statuses(report: FreshnessReport) -> dict[str, tuple[str, str]]:
    return {one.name: (one.status, one.backup) for one in report.collections}


def official(name: str, **shape: Any) -> dict[str, bytes]:
    files, _ = rewrite(synthetic(**shape).full_meta, "0.5.10", BACKUPS, name)
    return files


def test_a_look_costs_the_catalog_and_milvus_is_only_asked_for_names() -> None:
    with place(backup("nightly_1", data=2000), backup("nightly_2")) as there:
        there.create(DOCS)
        assert statuses(there.looked(YEARS)) == {"default.docs": (FRESH, "nightly_1")}
        assert there.served.requests == {"list": 1 + 2, "get": 2 * 2}
        assert set(there.contract.requests) <= {"Connect", "ListDatabases", "ShowCollections", "GetVersion"}


def test_late_missing_and_new_are_told_apart_and_the_log_says_so() -> None:
    with place(backup("nightly_1")) as there:
        there.create(DOCS, DOCS._replace(collection="tags"))
        there.create(DOCS._replace(collection="young"), old=False)
        report = there.looked()
    assert statuses(report) == {"default.tags": (MISSING, ""), "default.docs": (LATE, "nightly_1"), "default.young": (NEW, "")}
    assert report.collections[0].age is not None
    log = "\n".join(there.log.lines)
    assert report.message in log
    for line in report.table():
        assert line in log


def test_what_a_restore_builds_and_external_collections_are_not_expected_in_backups() -> None:
    with place(backup("nightly_1")) as there:
        there.create(DOCS, DOCS._replace(collection="docs__restore_0123456789abcdef"))
        external = shapes.schema("lake")
        external.external_source = "s3://lake/table"
        there.contract.model.create_collection(DOCS._replace(collection="lake"), external, shards=1)
        assert statuses(there.looked(YEARS)) == {"default.docs": (FRESH, "nightly_1")}


def test_a_selection_is_that_of_a_backup_and_a_name_that_is_not_there_is_an_error() -> None:
    with place(backup("nightly_1")) as there:
        there.create(DOCS, DOCS._replace(collection="tags"))
        assert list(statuses(there.looked(collections="docs"))) == ["default.docs"]
        assert set(statuses(there.looked(collections=["default.*"]))) == {"default.docs", "default.tags"}
        with pytest.raises(ConfigError, match=r"default\.dogs does not exist; did you mean default\.docs"):
            there.looked(collections=["dogs"])


def test_only_backups_of_the_pattern_count() -> None:
    with place(backup("nightly_1"), backup("weekly_1")) as there:
        there.create(DOCS)
        assert statuses(there.looked(YEARS, name_pattern="weekly_*")) == {"default.docs": (FRESH, "weekly_1")}
        assert statuses(there.looked(YEARS, name_pattern="hourly_*")) == {"default.docs": (MISSING, "")}


def test_what_was_verified_counts_for_its_level() -> None:
    with place(backup("checked", verified=True), backup("newer")) as there:
        there.create(DOCS)
        assert statuses(there.looked(YEARS, level="objects")) == {"default.docs": (FRESH, "checked")}
        assert statuses(there.looked(YEARS, level="checksums")) == {"default.docs": (MISSING, "")}


def test_the_meta_of_an_official_backup_is_read_once_however_often_it_is_looked_at() -> None:
    name = CollectionName("default", synthetic().full_meta["collection_backups"][0]["collection_name"])
    with place(official("theirs")) as there:
        there.create(name)
        remembered: dict[Any, Any] = {}
        for _ in range(3):
            assert statuses(there.watch(YEARS, remembered, collections=[str(name)]).look()) == {str(name): (FRESH, "theirs")}
        assert sum("full_meta.json" in target for target in there.served.asked) == 1


def test_an_official_backup_that_cannot_be_read_or_is_without_data_does_not_count() -> None:
    empty, broken = official("empty", segments=0, l0=False), {**official("broken"), f"{BACKUPS}/broken/meta/full_meta.json": b"{"}
    name = CollectionName("default", synthetic().full_meta["collection_backups"][0]["collection_name"])
    with place(empty, broken) as there:
        there.create(name)
        report = there.looked(YEARS)
    assert statuses(report) == {str(name): (MISSING, "")}
    assert ["holds no data" in warning for warning in sorted(report.warnings)] == [False, True]
    assert min(report.warnings).startswith("backup 'broken' does not count: full_meta.json")
    assert sum("full_meta.json" in target for target in there.served.asked) == 2, "each is read once in a look"


# ---- when somebody is away ---------------------------------------------------------------------------------------------------------


def away(there: Place) -> Place:
    there.server = MilvusServer(MilvusAddress("127.0.0.1", 1))
    return there


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_milvus_backup.core.rpc.CONNECT_SECONDS", 0.2)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("collections", [None, "default.*", ["docs", "default.*"]])
def test_without_milvus_nobody_knows_which_collections_there_are(collections: Any) -> None:
    with place(backup("nightly_1")) as there, pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:1 did not answer"):
        away(there).looked(YEARS, collections=collections)


@pytest.mark.usefixtures("hurried")
def test_without_milvus_the_backups_of_named_collections_are_judged_with_a_warning() -> None:
    with place(backup("nightly_1")) as there:
        report = away(there).looked(YEARS, collections=["docs", "other.tags", "default.docs"])
    assert statuses(report) == {"default.docs": (FRESH, "nightly_1"), "other.tags": (MISSING, "")}
    assert "the backups alone are judged" in report.warnings[0]
    assert any("the backups alone are judged" in line for line in there.log.lines)


def test_a_milvus_that_refuses_the_password_is_not_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> Any:
        raise AuthError("check login, password or token")

    with place(backup("nightly_1")) as there:
        monkeypatch.setattr(there.server, "databases", lambda: refuse(None))
        with pytest.raises(AuthError):
            there.looked(YEARS, collections=["docs"])


def test_backups_that_may_not_be_listed_are_an_error_not_missing() -> None:
    with place(backup("nightly_1"), refused={"list-type": DENIED}) as there:
        there.create(DOCS)
        with pytest.raises(StorageDenied):
            there.looked()
