"""The store against a real HTTP server that breaks: what is repeated, what is not, and what a lost answer means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from airflow_provider_milvus_backup.core import store as stores
from airflow_provider_milvus_backup.core.errors import NotInStorage, ObjectChanged, StorageDenied, StorageError
from airflow_provider_milvus_backup.core.store import ObjectStore
from benchmarks.collection import BUCKET, location
from benchmarks.slow_s3 import Answer, Store, in_thread, seeded
from tests.breaking.faults import Fault, Script
from tests.breaking.faulty_s3 import FaultyS3, faulty_s3


class ConditionalStore(Store):
    """Keeps to If-None-Match and If-Match, as S3 does."""

    def answer(self, head: str, body: bytes) -> Answer:
        lowered, name = head.lower(), head.split(" ")[1].partition("?")[0][1:]
        there = self.objects.get(name)
        if head.startswith("PUT") and "\r\nif-none-match: *" in lowered and there:
            return Answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        if head.startswith("PUT") and "\r\nif-match:" in lowered and f'"{there.etag.lower() if there else ""}"' not in lowered:
            return Answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        return super().answer(head, body)


@contextmanager
def broken(faults: dict[tuple[str, int], Fault], objects: int = 0) -> Iterator[tuple[ObjectStore, FaultyS3]]:
    """Serve a store behind a proxy that plays these faults; it has answered once already."""
    upstream = ConditionalStore(seeded({f"{BUCKET}/list/{number:05}": 1 for number in range(objects)}), 0.0)
    with in_thread(upstream) as endpoint, faulty_s3(endpoint, Script(faults)) as proxy:
        store = ObjectStore(location(proxy.endpoint_url, ("key", "secret"), "root", BUCKET))
        store.write("first", b"x")
        yield store, proxy


def test_a_listing_that_breaks_goes_on_behind_what_was_seen() -> None:
    faults = {("list", 2): Fault.TRUNCATED, ("list", 4): Fault.RESET}
    with broken(faults, objects=2500) as (store, proxy):
        keys = [item.key for item in store.objects("list")]
        assert keys == [f"list/{number:05}" for number in range(2500)]
        assert proxy.requests["list"] >= 4


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.THROTTLE, Fault.RESET, Fault.LOST, Fault.TRUNCATED])
def test_a_lease_whose_answer_is_lost_is_still_ours(fault: Fault) -> None:
    with broken({("put-if", 1): fault}) as (store, _):
        etag = store.create("lease", b"mine, token 1")
        assert store.conditional is True
        store.swap("lease", b"mine, token 2", etag)
        assert store.read("lease") == b"mine, token 2"


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.TRUNCATED, Fault.RESET])
def test_a_swap_whose_answer_is_lost_is_still_ours(fault: Fault) -> None:
    with broken({("put-if", 3): fault}) as (store, _):
        etag = store.create("lease", b"one")
        etag = store.swap("lease", b"two", etag)
        assert store.swap("lease", b"three", etag)
        assert store.read("lease") == b"three"


def test_somebody_elses_object_is_never_taken_for_ours() -> None:
    with broken({}) as (store, _):
        etag = store.create("lease", b"theirs")
        with pytest.raises(ObjectChanged):
            store.create("lease", b"mine")
        store.swap("lease", b"theirs again", etag)
        with pytest.raises(ObjectChanged):
            store.swap("lease", b"mine", etag)
        assert store.read("lease") == b"theirs again"


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.THROTTLE, Fault.RESET, Fault.TRUNCATED])
def test_reads_and_writes_are_repeated(fault: Fault) -> None:
    with broken({("get", 1): fault, ("put", 2): fault, ("head", 1): fault}) as (store, _):
        store.write("second", b"content")
        assert store.read("second") == b"content"
        assert store.exists("second")


def test_a_store_that_stays_away_is_an_error_when_the_budget_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "BUDGET", 0.5)
    with broken({}) as (store, proxy):
        proxy.down = True
        with pytest.raises(StorageError, match="cannot read 'first' from"):
            store.read("first")


def test_what_is_forbidden_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with broken({}) as (store, proxy):
        denied = Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        monkeypatch.setattr(ConditionalStore, "answer", lambda *_: denied)
        before = proxy.requests["get"]
        with pytest.raises(StorageDenied):
            store.read("first")
        assert proxy.requests["get"] == before + 1


def test_a_key_that_may_not_be_deleted_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = b"<Error><Key>first</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    with broken({}) as (store, proxy):
        answer = Answer(body=b"<DeleteResult>" + refused + b"</DeleteResult>")
        monkeypatch.setattr(ConditionalStore, "answer", lambda *_: answer)
        before = proxy.requests.total()
        with pytest.raises(StorageDenied, match="cannot delete 1 objects"):
            store.delete(["first"])
        assert proxy.requests.total() == before + 1


def test_an_object_that_is_gone_when_its_age_is_asked_for_is_not_found() -> None:
    with broken({}) as (store, _):
        assert store.age("first") >= 0
        with pytest.raises(NotInStorage):
            store.age("second")


@pytest.mark.parametrize("code", ["PreconditionFailed", "ConditionalRequestConflict"])
def test_a_writer_that_was_slower_than_one_which_is_gone_again_lost_all_the_same(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    def answer(self: ConditionalStore, head: str, body: bytes) -> Answer:
        if head.startswith("PUT"):
            return Answer(412 if code == "PreconditionFailed" else 409, f"<Error><Code>{code}</Code></Error>".encode())
        return Store.answer(self, head, body)

    with broken({}) as (store, _):
        monkeypatch.setattr(ConditionalStore, "answer", answer)
        with pytest.raises(ObjectChanged):
            store.create("lease", b"mine")
        with pytest.raises(ObjectChanged):
            store.swap("lease", b"mine", '"etag"')


def test_an_error_does_not_make_a_store_one_without_conditions() -> None:
    with broken({("put-if", 2): Fault.RESET}) as (store, _):
        store.create("lease", b"mine")
        assert store.conditional is None
        store.create("another", b"mine")
        assert store.conditional is True
