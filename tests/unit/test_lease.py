"""Leases: who may take one over, what they say, and what becomes of them in a store without conditional writes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core import lease as leases
from airflow_provider_milvus_backup.core.errors import BackupDamaged, BackupInUse, TakenOver
from airflow_provider_milvus_backup.core.lease import Holding, Lease, Owner, holder, in_use, may_take_over
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.store import ObjectStore
from benchmarks.collection import BUCKET, location
from benchmarks.slow_s3 import Store, in_thread

ME, OTHER = Owner("dag/run/task/-1", 1, 2), Owner("dag/other/task/-1", 0, 9)
KEY = "backup/name/provider/lease.json"


class Lines:
    """A logger that keeps what is written to it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str, *args: object) -> None:
        self.lines.append(text % args)

    warning = info


@pytest.mark.parametrize(
    ("held", "age", "may"),
    [
        (OTHER, 59.9, False),
        (OTHER, 60.0, True),
        (OTHER, -3.0, False),  # a lease from the future is alive
        (ME, 0.0, True),
        (Owner(ME.identity, 1, 1), 0.0, True),
        (Owner(ME.identity, 0, 7), 0.0, True),  # from before a clear
        (Owner(ME.identity, 1, 3), 0.0, False),  # an older try never takes it from a newer one
        (Owner(ME.identity, 2, 1), 0.0, False),
        (Owner(), 0.0, False),
    ],
)
def test_a_lease_is_taken_over_when_it_has_run_out_or_belongs_to_an_earlier_try(held: Owner, age: float, may: bool) -> None:
    assert may_take_over(Holding(held, "write"), age, ME) is may


def test_two_programs_without_a_name_are_never_taken_for_the_same() -> None:
    assert not may_take_over(Holding(Owner(), "write"), 1.0, Owner())


@given(st.builds(Owner, st.text(st.characters(codec="utf-8")), st.integers(0, 9), st.integers(0, 9)), st.floats(0, 1e9))
def test_a_lease_survives_its_file(owner: Owner, seconds: float) -> None:
    holding = Holding(owner, "write", seconds)
    assert Holding.from_json(holding.to_json()) == holding


DAMAGED = [b"{}", b'{"version":1}', b'{"version":1,"owner":{},"seconds":-1}', b'{"version":1,"owner":3}']


@given(st.binary(max_size=200) | st.sampled_from(DAMAGED))
def test_a_damaged_lease_is_a_documented_error(content: bytes) -> None:
    with pytest.raises(BackupDamaged, match="the lease"):
        Holding.from_json(content)


@given(st.binary(max_size=20) | st.sampled_from([*DAMAGED, b"", b"null", b"[1]"]))
def test_a_lease_that_cannot_be_read_is_somebodys_for_as_long_as_any(content: bytes) -> None:
    held = Holding.of(content)
    assert (str(held.owner), held.seconds) == ("somebody whose lease cannot be read", leases.LIFE)
    assert [may_take_over(held, age, ME) for age in (0.0, leases.LIFE - 1, leases.LIFE)] == [False, False, True]
    assert held.token != Holding.of(content).token, "it is nobody's own"


def test_a_lease_of_a_later_form_that_says_for_how_long_it_was_handed_over_is_believed() -> None:
    later = b'{"version":9,"seconds":86400,"held_by":{"dag":"d"}}'
    assert Holding.of(later).seconds == 86400.0
    assert not may_take_over(Holding.of(later), 3600.0, ME)


def test_a_readable_lease_is_read_as_before() -> None:
    holding = Holding(OTHER, "write", 5.0)
    assert Holding.of(holding.to_json()) == holding


@pytest.mark.parametrize("key", [KEY, "backup/name/provider/leases/0123456789abcdef.json"])
@pytest.mark.parametrize(("age", "free"), [(1.0, False), (61.0, True)])
def test_a_broken_lease_keeps_a_backup_from_others_for_a_minute_and_not_for_ever(
    weak: ObjectStore, monkeypatch: pytest.MonkeyPatch, key: str, age: float, free: bool
) -> None:
    monkeypatch.setattr(ObjectStore, "age", lambda *_: age)
    weak.conditional = False  # found out already
    weak.write(key, b"{half a lea")
    assert [str(held.owner) for held in in_use(weak, "backup", "name")] == ([] if free else ["somebody whose lease cannot be read"])
    mine = Lease(weak, key, ME, "delete backup 'name'", Reporter(Lines()))
    if free:
        mine.take()
        assert Holding.from_json(weak.read(key)) == mine.holding
    else:
        with pytest.raises(BackupInUse, match="somebody whose lease cannot be read"):
            mine.take()
        assert weak.read(key) == b"{half a lea"


@pytest.fixture
def weak() -> Iterator[ObjectStore]:
    """A store that takes every write, whatever its conditions."""
    with in_thread(Store({}, 0.0)) as endpoint:
        yield ObjectStore(location(endpoint, ("key", "secret"), "backup", BUCKET))


def test_a_store_without_conditional_writes_is_found_out_and_warned_of(weak: ObjectStore) -> None:
    log = Lines()
    Lease(weak, KEY, ME, "write backup 'name'", Reporter(log)).take()
    assert weak.conditional is False
    assert any("does not keep to conditional writes" in line for line in log.lines)


def test_there_a_second_writer_is_still_kept_out_and_a_lost_lease_noticed(weak: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ObjectStore, "age", lambda *_: 1.0)
    first = Lease(weak, KEY, OTHER, "write backup 'name'", Reporter(Lines()))
    first.holding = replace(first.holding, host="elsewhere")
    first.take()
    with pytest.raises(BackupInUse, match=r"dag/other/task/-1, try 9 \(process \d+ on "):
        Lease(weak, KEY, ME, "write backup 'name'", Reporter(Lines())).take()
    first.hand_over(0.5)
    log = Lines()
    Lease(weak, KEY, ME, "write backup 'name'", Reporter(log)).take()
    assert any(re.match(r"took over from dag/other/task/-1, try 9 .* last sign of life was 1.0 s ago", line) for line in log.lines)
    with pytest.raises(TakenOver, match="another run has taken over to write backup 'name'"):
        first.renew()
    assert holder(weak, KEY) is not None
    assert [str(held.owner) for held in in_use(weak, "backup", "name")] == ["dag/run/task/-1, try 2"]


def test_a_process_that_slept_finds_out_before_it_goes_on(weak: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(ObjectStore, "age", lambda *_: 1.0)
    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=lambda: now[0]))
    weak.conditional = False
    mine = Lease(weak, KEY, ME, "delete", Reporter(Lines()))
    mine.take()
    Lease(weak, KEY, Owner(ME.identity, 1, 3), "delete", Reporter(Lines())).take()
    now[0] = 2 * leases.RENEWAL
    mine.confirm()  # awake: the thread that renews it finds out
    now[0] += 1
    with pytest.raises(TakenOver):
        mine.confirm()


def test_a_run_whose_lease_is_taken_stops(weak: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ObjectStore, "age", lambda *_: 1.0)
    monkeypatch.setattr(leases, "RENEWAL", 0.05)
    patience, mine = Patience(), Lease(weak, KEY, ME, "write", Reporter(Lines()))
    mine.take()
    with mine.kept(patience):
        time.sleep(0.2)
        patience.check("working")
        with mine._lock:  # in a store without conditions a renewal in this moment could win
            Lease(weak, KEY, Owner(ME.identity, 1, 3), "write", Reporter(Lines())).take()
        with pytest.raises(TakenOver):
            patience.pause(60, "working")
