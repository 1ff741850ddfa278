"""The copier against a small S3 of our own that refuses, hangs and loses objects on demand."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from airflow_provider_milvus_backup.core import copier
from airflow_provider_milvus_backup.core.copier import Copy, Limit, Progress, copy_objects
from airflow_provider_milvus_backup.core.errors import Cancelled, SourceChanged, StorageError
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.store import ObjectStore
from benchmarks.collection import BUCKET, location
from benchmarks.slow_s3 import Answer, Store, in_thread, seeded

BUSY = Answer(503, b"<Error><Code>SlowDown</Code></Error>")
BROKEN = Answer(500, b"<Error><Code>InternalError</Code></Error>")


class MoodyStore(Store):
    """Asks ``refuse`` about every copy first, and counts what it refused and what it copied."""

    def __init__(self, objects: int, refuse: Callable[[], Answer | None] = lambda: None, copy_seconds: float = 0.01) -> None:
        super().__init__(seeded({f"{BUCKET}/{source(number)}": 100 + number for number in range(objects)}), copy_seconds)
        self.plan = [Copy(source(number), f"backup/{number}", 100 + number) for number in range(objects)]
        self.refuse = refuse
        self.refused = 0
        self.copied: Counter[str] = Counter()

    def copy(self, source: str, destination: str) -> Answer:
        if answer := self.refuse():
            self.refused += 1
            return answer
        answer = super().copy(source, destination)
        self.copied[destination] += answer.status == 200
        return answer

    def run(self, *, concurrency: int = 256, stop: threading.Event | None = None) -> Progress:
        progress = Progress(len(self.plan), sum(copy.size for copy in self.plan))
        with in_thread(self) as endpoint:
            places = [ObjectStore(location(endpoint, ("key", "secret"), "")) for _ in range(2)]
            copy_objects(places[0], places[1], self.plan, progress, concurrency=concurrency, patience=Patience(stop or threading.Event()))
        return progress

    def assert_all_copied_once(self) -> None:
        assert self.copied == {f"{BUCKET}/{copy.destination}": 1 for copy in self.plan}
        for copy in self.plan:
            assert self.objects[f"{BUCKET}/{copy.destination}"] == self.objects[f"{BUCKET}/{copy.source}"]


def source(number: int) -> str:
    # Ids look like this, and no digits in them may pass for a status.
    return f"files/insert_log/{446930000000503000 + number}/429"


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every value the limit had, after the first."""
    seen: list[int] = []

    class WatchedLimit(Limit):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "value" and isinstance(value, int):
                seen.append(value)

    monkeypatch.setattr(copier, "Limit", WatchedLimit)
    return seen


@pytest.mark.parametrize("concurrency", [1, 7, 256])
def test_every_object_is_copied_once_and_counted(concurrency: int) -> None:
    store = MoodyStore(100, copy_seconds=0)
    progress = store.run(concurrency=concurrency)
    store.assert_all_copied_once()
    assert (progress.objects, progress.bytes, progress.retries, progress.mode) == (100, progress.total_bytes, 0, "server-side")


def test_nothing_to_copy() -> None:
    assert MoodyStore(0).run().objects == 0


def test_a_fifth_of_all_requests_may_fail() -> None:
    chance = random.Random(1)
    store = MoodyStore(1000, lambda: chance.choice([BUSY, BROKEN]) if chance.random() < 0.2 else None)
    progress = store.run()
    store.assert_all_copied_once()
    assert 100 < store.refused == progress.retries
    assert progress.objects == 1000


def test_a_store_that_takes_few_copies_at_a_time_is_asked_for_less_and_then_for_more_again(limits: list[int]) -> None:
    at_work = 0

    def end() -> None:
        nonlocal at_work
        at_work -= 1

    def refuse() -> Answer | None:
        nonlocal at_work
        if at_work >= 20:
            return BUSY
        at_work += 1
        asyncio.get_running_loop().call_later(store.copy_seconds, end)
        return None

    # Copies take so long that more than 20 come meanwhile however busy this machine is.
    store = MoodyStore(400, refuse, copy_seconds=0.2)
    progress = store.run(concurrency=64)
    store.assert_all_copied_once()
    assert progress.retries == store.refused
    assert limits[:2] == [64, 32]
    assert min(limits) < 25  # 32 is too many as well
    assert max(limits[limits.index(min(limits)) :]) > min(limits)
    assert store.refused < 500


def test_the_limit_is_halved_at_most_once_a_second_and_grows_by_one_after_as_many_successes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    limit = Limit(8)
    limit.success()
    assert limit.value == 8
    for _ in range(5):
        limit.throttle()
    assert limit.value == 4
    for expected in (4, 4, 4, 5, 5, 5, 5, 5, 6):
        limit.success()
        assert limit.value == expected
    for _ in range(9):
        now += 1
        limit.throttle()
    assert limit.value == 1
    for _ in range(100):
        limit.success()
    assert limit.value == 8


def test_a_store_that_stays_busy_is_an_error_after_some_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copier, "ATTEMPTS", 3)
    store = MoodyStore(5, lambda: BUSY)
    with pytest.raises(StorageError, match="SlowDown"):
        store.run()
    assert store.refused == 3  # the first object is tried alone


def test_a_source_that_vanished_is_named_and_not_asked_for_again() -> None:
    store = MoodyStore(50)
    del store.objects[f"{BUCKET}/{store.plan[30].source}"]
    with pytest.raises(SourceChanged, match=f"{store.plan[30].source}.* vanished"):
        store.run()
    assert store.requests["copy"] <= 50


@pytest.mark.parametrize("copy_seconds", [0.02, 3600.0], ids=["busy", "hanging"])
def test_stop_ends_it_at_once(copy_seconds: float) -> None:
    stop = threading.Event()
    stopping = threading.Timer(0.5, stop.set)

    def at_the_hundredth() -> None:
        if store.requests["copy"] == 100:
            store.copy_seconds = copy_seconds
            stopping.start()

    store = MoodyStore(100_000, at_the_hundredth, copy_seconds=0.02)
    with pytest.raises(Cancelled, match=r"stopped while copying: [\d,]+ of 100,000 objects are there"):
        store.run(concurrency=16, stop=stop)
    stopping.join()
    asked = store.requests["copy"]
    time.sleep(0.2)
    assert 100 <= store.requests["copy"] == asked < 20_000
