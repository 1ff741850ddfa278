"""Every wait ends when it should: by a kill, a deadline, a lost lease, or when its budget is used up."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from airflow_provider_milvus_backup.core import patience as waiting
from airflow_provider_milvus_backup.core.errors import Cancelled, TakenOver, WaitTimeout
from airflow_provider_milvus_backup.core.patience import Backoff, Patience


def test_a_kill_ends_a_wait_at_once_and_says_what_was_going_on() -> None:
    patience = Patience()
    threading.Timer(0.1, patience.stop.set).start()
    with pytest.raises(Cancelled, match="stopped while Milvus was loading"):
        patience.pause(3600, "Milvus was loading")


class Clock(threading.Event):
    """Time passes when it is waited for, and only then."""

    now = 1000.0

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        return self.is_set()


def test_a_deadline_counts_from_the_start_over_all_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(waiting, "time", SimpleNamespace(time=lambda: clock.now, monotonic=lambda: clock.now))
    patience = Patience(clock, timeout=10)
    for _ in range(3):
        patience.pause(3, "waiting")
    assert not patience.over()
    with pytest.raises(WaitTimeout, match="out of time while jobs 1, 2 are still running"):
        patience.pause(60, "jobs 1, 2 are still running")
    assert patience.over()
    assert clock.now == pytest.approx(1010, abs=0.1)


def test_what_another_thread_found_out_is_raised_before_all_else() -> None:
    patience = Patience(timeout=0)
    patience.stop.set()
    patience.failure = TakenOver("by another run")
    with pytest.raises(TakenOver, match="by another run"):
        patience.check("waiting")


def test_attempts_end_when_the_budget_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Patience, "pause", lambda _, seconds, doing: clock.append(clock.pop() + seconds))
    backoff = Backoff(0.4, Patience(), first=0.1)
    while backoff.again("asking"):
        pass
    assert 2 <= backoff.repeats <= 4
    assert clock[0] <= 1000.4


def test_attempts_end_with_the_run() -> None:
    patience = Patience()
    patience.stop.set()
    with pytest.raises(Cancelled, match="stopped while Milvus is away"):
        Backoff(60, patience).again("Milvus is away")
