"""Garbage collection stands still while a backup copies, and goes on afterwards, whatever Milvus this is."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import pytest

from airflow_provider_milvus_backup.core import gc_pause
from airflow_provider_milvus_backup.core.errors import (
    Cancelled,
    ConfigError,
    ServerError,
)
from airflow_provider_milvus_backup.core.gc_pause import (
    GC_AUTO,
    GC_OFF,
    GC_REQUIRE,
    GcPause,
    check_gc_pause,
    management_login,
    management_url,
)
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.settings import MilvusAddress
from tests.unit.management_port import CLUSTER, LEASE, Clock, Lines, Milvus, New, making, serving, until


@pytest.fixture
def log() -> Lines:
    return Lines()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def new(log: Lines, clock: Clock) -> Iterator[New]:
    with making(log, clock) as make:
        yield make


# ---- what is asked for -------------------------------------------------------------------------------------------------------------


def test_only_three_words_say_how_to_pause() -> None:
    assert [check_gc_pause(value) for value in ("auto", "require", "off")] == [GC_AUTO, GC_REQUIRE, GC_OFF]
    for value in ("", "AUTO", "true"):
        with pytest.raises(ConfigError, match=f"gc_pause '{value}' is not one of auto, require, off"):
            check_gc_pause(value)


@pytest.mark.parametrize(
    ("host", "endpoint", "url"),
    [
        ("milvus", "", "http://milvus:9091"),
        ("::1", "", "http://[::1]:9091"),
        ("milvus", "admin:9092", "http://admin:9092"),
        ("milvus", " https://admin/milvus/ ", "https://admin/milvus"),
    ],
)
def test_the_management_port_is_where_the_connection_says_or_beside_milvus(host: str, endpoint: str, url: str) -> None:
    assert management_url(MilvusAddress(host, management_endpoint=endpoint)) == url


@pytest.mark.parametrize("endpoint", ["ftp://h", "http://", "h:port", "h:0", "h:99999", "h/x?y", "h/#x", "a b", "::1"])
def test_a_management_endpoint_that_is_no_url_is_named_with_its_connection(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=rf"^management_endpoint '{re.escape(endpoint)}' of connection 'm' is not a URL like http://host"):
        management_url(MilvusAddress("h", management_endpoint=endpoint, label="connection 'm'"))


def test_a_password_in_the_management_endpoint_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="without user and password") as refusal:
        management_url(MilvusAddress("h", management_endpoint="http://root:s3/c@ret@h:9091"))
    assert "ret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("address", "login"),
    [
        (MilvusAddress("h", user="root", password="pw"), ("root", "pw")),
        (MilvusAddress("h", token="root:p:w"), ("root", "p:w")),
        (MilvusAddress("h", token="an-api-key"), None),
        (MilvusAddress("h"), None),
        (MilvusAddress("h", user="root", password="pw", secure=True), None),
        (MilvusAddress("h", user="root", password="pw", secure=True, management_endpoint="https://h:9091"), ("root", "pw")),
    ],
)
def test_a_password_that_travels_by_tls_is_not_sent_in_the_clear(address: MilvusAddress, login: tuple[str, str] | None) -> None:
    assert management_login(address) == login


# ---- pausing and resuming ----------------------------------------------------------------------------------------------------------


def test_with_tickets_each_collection_is_paused_and_resumed_by_itself(new: New, log: Lines) -> None:
    with serving(Milvus(tickets={"somebody else's": 7})) as milvus:
        with new(milvus.url) as pause:
            pause.hold([7, 8])
            assert milvus.requests == [("pause", {**LEASE, "collection_id": "7"}), ("pause", {**LEASE, "collection_id": "8"})]
            assert milvus.paused == {7, 8}
        assert milvus.tickets == {"somebody else's": 7}
        until(lambda: milvus.connections == 0)
    assert log.lines == ["garbage collection of Milvus is paused for 2 collections", "garbage collection of Milvus goes on"]
    assert log.warnings == []


def test_without_tickets_the_cluster_is_paused_once_and_resumed_once(new: New, log: Lines) -> None:
    with serving(Milvus("2.5")) as milvus:
        with new(milvus.url, per_collection=False) as pause:
            pause.hold([7, 8])
            assert milvus.paused == {CLUSTER}
        assert milvus.requests == [("pause", LEASE), ("resume", {})]
    assert log.lines == ["garbage collection of Milvus is paused for the whole cluster", "garbage collection of Milvus goes on"]


def test_a_milvus_that_gives_no_ticket_is_never_named_a_collection_again(new: New) -> None:
    with serving(Milvus("2.5")) as milvus:
        with new(milvus.url, renew_seconds=0.01) as pause:
            pause.hold([7, 8])
            pause.hold([9])
            until(lambda: len(milvus.asked("pause")) > 3)
        first, *renewals = milvus.asked("pause")
        assert first == {**LEASE, "collection_id": "7"}
        assert {tuple(query) for query in renewals} == {("pause_seconds",)}
        assert milvus.asked("resume") == [{}]
        assert milvus.paused == set()


def test_a_ticket_that_was_not_expected_is_used_all_the_same(new: New) -> None:
    with serving(Milvus()) as milvus:
        with new(milvus.url, per_collection=False, mode=GC_REQUIRE) as pause:
            pause.hold([7, 8])
            assert milvus.asked("pause") == [LEASE]
        assert milvus.paused == set()


def test_what_is_held_already_is_not_asked_for_again(new: New) -> None:
    with serving(Milvus()) as milvus:
        with new(milvus.url) as pause:
            pause.hold([7, 7])
            pause.hold([])
            pause.hold([8, 7])
            assert [query["collection_id"] for query in milvus.asked("pause")] == ["7", "8"]
        pause.release()
        assert len(milvus.asked("resume")) == 2
        assert milvus.paused == set()


def test_a_released_pause_may_hold_again(new: New) -> None:
    with serving(Milvus()) as milvus:
        pause = new(milvus.url, renew_seconds=0.01)
        for _ in range(2):
            pause.hold([7])
            asked = len(milvus.requests)
            until(lambda asked=asked: len(milvus.requests) > asked)
            pause.release()
            assert milvus.paused == set()


def test_a_management_port_below_a_path_is_asked_there(new: New, log: Lines) -> None:
    with serving(Milvus()) as milvus, new(f"{milvus.url}/milvus") as pause:
        seen: list[str] = []
        get = milvus.get
        milvus.get = lambda target, authorization: get(seen.append(target) or target, authorization)
        pause.hold([7])
        assert seen == ["/milvus/management/datacoord/garbage_collection/pause?pause_seconds=3600&collection_id=7"]


def test_an_exception_while_copying_resumes(new: New) -> None:
    def backup(pause: GcPause) -> None:
        with pause:
            pause.hold([7])
            raise KeyboardInterrupt

    with serving(Milvus()) as milvus:
        with pytest.raises(KeyboardInterrupt):
            backup(new(milvus.url))
        assert milvus.history == [{7}, set()]


def test_a_kill_in_the_middle_of_pausing_resumes_what_is_paused(new: New, monkeypatch: pytest.MonkeyPatch) -> None:
    patience = Patience()
    with serving(Milvus()) as milvus:
        pause = new(milvus.url, patience=patience)
        one = GcPause._pause
        monkeypatch.setattr(GcPause, "_pause", lambda self, key: (one(self, key), patience.stop.set()))
        with pytest.raises(Cancelled, match="stopped while Milvus's garbage collection was being paused"), pause:
            pause.hold([7, 8])
        assert milvus.history == [{7}, set()]


def test_off_sends_nothing(new: New, log: Lines) -> None:
    with serving(Milvus()) as milvus:
        with new(milvus.url, mode=GC_OFF) as pause:
            pause.hold([7])
            pause.check()
        assert milvus.requests == []
    assert (log.lines, log.warnings) == ([], [])


def test_milvus_whose_garbage_collection_is_switched_off_is_nothing_to_warn_of(new: New, log: Lines) -> None:
    with serving(Milvus(enabled=False)) as milvus:
        with new(milvus.url, mode=GC_REQUIRE) as pause:
            pause.hold([7, 8])
        assert len(milvus.asked("resume")) == 2
    assert log.warnings == []


# ---- renewing ----------------------------------------------------------------------------------------------------------------------


def test_a_renewal_leaves_no_gap_and_no_ticket_behind(new: New) -> None:
    with serving(Milvus()) as milvus:
        with new(milvus.url, renew_seconds=0.01) as pause:
            pause.hold([7, 8])
            until(lambda: len(milvus.asked("pause")) >= 8)
            assert set(milvus.tickets.values()) == {7, 8}
            assert len(milvus.tickets) <= 3  # the newest of each, and at most one that is about to be given back
        assert all(paused == {7, 8} for paused in milvus.history[1:-2])
        assert milvus.tickets == {}
        until(lambda: milvus.connections == 0)


def test_a_renewal_that_is_under_way_at_the_end_is_resumed_too(new: New) -> None:
    with serving(Milvus()) as milvus:
        with new(milvus.url, renew_seconds=0.01) as pause:
            pause.hold([7])
            milvus.hang = threading.Event()
            asked = len(milvus.requests)
            until(lambda: len(milvus.requests) > asked)
            threading.Timer(0.1, milvus.hang.set).start()
        assert milvus.tickets == {}


def test_a_milvus_that_stops_to_give_tickets_is_paused_as_a_whole(new: New) -> None:
    with serving(Milvus()) as milvus:
        with new(milvus.url, renew_seconds=0.01) as pause:
            pause.hold([7, 8])
            with pause._lock:
                milvus.release = "2.5"  # another one behind the same address
                resumed = len(milvus.asked("resume"))
            until(lambda: milvus.asked("pause")[-1] == LEASE)
            assert milvus.cluster
            assert len(milvus.asked("resume")) == resumed
        assert not milvus.cluster


def test_what_another_tool_resumed_is_paused_again(new: New) -> None:
    with serving(Milvus("2.5")) as milvus, new(milvus.url, per_collection=False, renew_seconds=0.01) as pause:
        pause.hold([7])
        milvus.cluster = False
        until(lambda: milvus.cluster)


def test_a_pause_that_anybody_may_end_is_renewed_every_minute_another_every_half_lease(new: New) -> None:
    for release, seconds in (("2.5", 60.0), ("2.6.20", 1800.0)):
        with serving(Milvus(release)) as milvus, new(milvus.url, renew_seconds=gc_pause.LEASE_SECONDS / 2) as pause:
            pause.hold([7])
            assert pause._until_next() == seconds
            pause._failure = ServerError("a renewal failed")
            assert pause._until_next() == 60.0


def test_a_renewal_that_fails_is_tried_again_and_matters_only_when_the_pause_has_run_out(new: New, clock: Clock, log: Lines) -> None:
    with serving(Milvus()) as milvus, new(milvus.url, mode=GC_REQUIRE, renew_seconds=0.01) as pause:
        pause.hold([7])
        milvus.answer = (500, '{"msg": "failed to pause garbage collection, node offline"}')
        until(lambda: pause._failure is not None)
        clock.now += 3599
        pause.check()
        clock.now += 1
        with pytest.raises(ServerError, match=r"the pause of Milvus's garbage collection has run out: .* node offline \(HTTP status 500\)"):
            pause.check()
        milvus.answer = None
        until(lambda: not pause._lapsed() and pause._failure is None)
        pause.check()
    assert milvus.paused == set()
    assert log.warnings == []


def test_in_auto_a_pause_that_has_run_out_is_one_warning(new: New, clock: Clock, log: Lines) -> None:
    with serving(Milvus()) as milvus, new(milvus.url, renew_seconds=0.01) as pause:
        pause.hold([7])
        milvus.answer = (500, '{"msg": "failed to pause garbage collection, node offline"}')
        until(lambda: pause._failure is not None)
        assert log.warnings == []
        clock.now += 3601
        until(lambda: bool(log.warnings))
        asked = len(milvus.requests)
        until(lambda: len(milvus.requests) > asked + 3)
        pause.check()
    assert len(log.warnings) == 1
    assert "node offline" in log.warnings[0]


def test_what_has_run_out_is_not_resumed_for_it_could_only_be_somebody_elses(new: New, clock: Clock) -> None:
    with serving(Milvus("2.5")) as milvus:
        with new(milvus.url, per_collection=False) as pause:
            pause.hold([7])
            clock.now += 3600
        assert milvus.asked("resume") == []


@pytest.mark.parametrize("release", ["2.5", "2.6.20"])
def test_a_renewing_thread_that_died_is_noticed_and_replaced_and_the_pause_resumed(
    new: New, clock: Clock, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    monkeypatch.setattr(GcPause, "_renewing", lambda *_: None)
    with serving(Milvus(release)) as milvus:
        with new(milvus.url, mode=GC_REQUIRE, renew_seconds=0.01) as pause:
            pause.hold([7])
            pause.check()
            until(lambda: not (pause._thread and pause._thread.is_alive()))
            monkeypatch.undo()
            clock.now += 3600
            with pytest.raises(ServerError, match=r"has run out$"):
                pause.check()
            pause.hold([7])
            pause.check()
            asked = len(milvus.asked("pause"))
            until(lambda: len(milvus.asked("pause")) > asked)
        assert milvus.paused == set()


@pytest.mark.parametrize("release", ["2.5", "2.6.20"])
def test_a_pause_that_nobody_renews_any_more_is_resumed_all_the_same(new: New, monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    monkeypatch.setattr(GcPause, "_renewing", lambda *_: None)
    with serving(Milvus(release)) as milvus:
        with new(milvus.url) as pause:
            pause.hold([7])
            until(lambda: not (pause._thread and pause._thread.is_alive()))
            assert milvus.paused
        assert milvus.paused == set()
