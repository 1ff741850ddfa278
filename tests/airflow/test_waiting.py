"""Three ways to wait, one outcome."""

from __future__ import annotations

from typing import Any

import pytest

from tests.airflow import dag_runs
from tests.airflow.dag_runs import Run
from tests.airflow.stack import KEYS, Stack, in_environment

WAYS = ["synchronous", "deferred", "poke", "reschedule", "sensor_deferred"]


@pytest.fixture(scope="module")
def waited(airflow_db: object, stack: Stack, backed_up: dict[str, Any]) -> Run:
    with in_environment(stack.connections()):
        return dag_runs.run(dag_runs.load(dag_runs.DAGS / "waits.py", "waits"))


def test_every_way_to_wait_succeeds(waited: Run) -> None:
    assert set(waited.states().values()) == {"success"}, waited.states()


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_wait_restores_and_loads_every_row(waited: Run, stack: Stack, way: str) -> None:
    assert stack.loaded(f"coll_{way}")
    assert stack.rows(f"coll_{way}") == stack.rows("coll")


def test_every_way_to_wait_returns_the_same_summary(waited: Run) -> None:
    summaries = []
    for way in WAYS:
        summary = waited.result(way)
        assert len(summary.pop("restore_id")) == 16
        assert summary.pop("seconds") > 0
        assert summary.pop("rows_per_second") > 0
        assert summary["collections"][0].pop("name") == f"coll_{way}"
        summaries.append(summary)
    assert all(summary == summaries[0] for summary in summaries), summaries


@pytest.mark.parametrize("way", ["poke", "reschedule", "sensor_deferred"])
def test_submitting_returns_what_the_sensor_needs_at_once(waited: Run, way: str) -> None:
    submitted = waited.result(f"submit_{way}")
    assert submitted == {"restore_id": waited.result(way)["restore_id"], "backup_name": "shared", "jobs": submitted["jobs"]}
    assert len(submitted["jobs"]) == 2, "one job per partition"


def test_nothing_staged_is_left(waited: Run, stack: Stack) -> None:
    assert [stack.staged(waited.result(way)["restore_id"]) for way in WAYS] == [[]] * len(WAYS)


def test_no_secret_reaches_airflows_database(waited: Run, airflow_db: Any) -> None:
    content = b"".join(path.read_bytes() for path in airflow_db.parent.glob("airflow.db*"))
    assert b"coll_synchronous" in content
    assert [key["name"] for key in KEYS.values() if str(key["secret_key"]).encode() in content] == []
