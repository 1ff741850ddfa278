"""The example DAG under a real scheduler and a real triggerer; collected only where Airflow has them in this form (conftest.py)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.airflow.real import FINISHED, RealAirflow, until
from tests.airflow.stack import Stack

DAG = "milvus_backup_and_restore"
CONF = {"backup_name": "standalone", "collection": "coll", "suffix": "_standalone"}


class Observed:
    """What the REST API told while the run lasted, and after it."""

    def __init__(self, real: RealAirflow) -> None:
        self.real, self.airflow = real, real.airflow
        #: The states of each task, in their order.
        self.states: dict[str, list[str]] = {"backup": [], "restore": []}
        self.trigger: dict[str, Any] = {}

    def run(self) -> None:
        until(lambda: any(dag["dag_id"] == DAG for dag in self.airflow.call("GET", "/dags")["dags"]), "the DAG is parsed")
        self.airflow.call("PATCH", f"/dags/{DAG}", {"is_paused": False})
        run_id = self.airflow.call("POST", f"/dags/{DAG}/dagRuns", {"logical_date": None, "conf": CONF})["dag_run_id"]
        self.path = f"/dags/{DAG}/dagRuns/{run_id}"
        with self.real.stalled_imports():
            until(lambda: self._look() or self.trigger, "the restore waits in the triggerer")
        until(self._look, "the run ends")
        self.result = {task: self._get(f"{task}/xcomEntries/return_value")["value"] for task in self.states}
        # Of the logs, the last lines may come after the state.
        until(lambda: all(any("total, in " in line for line in self._log(task)) for task in self.states), "both logs have their table")
        self.log = {task: self._log(task) for task in self.states}

    def _look(self) -> bool:
        for task in self.airflow.call("GET", f"{self.path}/taskInstances")["task_instances"]:
            seen, state = self.states[task["task_id"]], str(task["state"])
            if state not in seen[-1:]:
                seen.append(state)
            if task["trigger"]:
                self.trigger = task["trigger"]
        return all(FINISHED & set(seen) for seen in self.states.values())

    def _get(self, what: str) -> Any:
        return self.airflow.call("GET", f"{self.path}/taskInstances/{what}")

    def _log(self, task: str) -> list[str]:
        content = self._get(f"{task}/logs/1?full_content=true")["content"]
        return [str(line["event"]) if isinstance(line, dict) else str(line) for line in content]


@pytest.fixture(scope="module")
def observed(real_airflow: RealAirflow) -> Observed:
    seen = Observed(real_airflow)
    seen.run()
    return seen


def test_the_restore_waits_in_the_triggerer_and_comes_back(observed: Observed) -> None:
    assert observed.states["backup"][-1] == "success"
    assert observed.states["restore"][-1] == "success"
    assert "deferred" in observed.states["restore"], observed.states
    assert observed.trigger["classpath"] == "airflow_provider_milvus_backup.triggers.imports.MilvusImportTrigger"


def test_what_was_restored_is_what_was_backed_up(observed: Observed, stack: Stack) -> None:
    assert stack.rows("coll_standalone") == stack.rows("coll")
    assert stack.loaded("coll_standalone")
    assert observed.result["backup"]["name"] == observed.result["restore"]["backup_name"] == "standalone"
    assert observed.result["restore"]["rows"] == observed.result["restore"]["collections"][0]["rows"] >= 1294


def test_the_log_of_the_restore_tells_its_story_in_order(observed: Observed) -> None:
    story = [
        "::group::Plan",
        "backup 'standalone' of Milvus v2.3.5-lite: 1 of 1 collection, 1,300 rows, ",
        "::endgroup::",
        "::group::Create and submit",
        "created default.coll_standalone from default.coll",
        "submitted 2 import jobs",
        "waiting in the triggerer for 2 import jobs",
        "rows, 0 of 2 jobs to go",  # the trigger's own line
        "::group::Finish",
        "restored as",
        "default.coll_standalone",
        "total, in ",
    ]
    lines = iter(observed.log["restore"])
    for part in story:
        assert any(part in line for line in lines), f"{part!r} does not follow in\n" + "\n".join(observed.log["restore"])


def test_the_log_of_the_backup_has_its_phases_and_its_table(observed: Observed) -> None:
    lines = iter(observed.log["backup"])
    phases = ["::group::Plan", "flushed 1 collection", "::group::Copy", "copied ", "::group::Commit", "committed s3://"]
    for part in [*phases, "default.coll", "total, in "]:
        assert any(part in line for line in lines), part


def test_no_secret_is_in_the_logs(observed: Observed) -> None:
    home = observed.airflow.log_path.parent
    for path in [observed.airflow.log_path, *(home / "logs").rglob("*.log")]:
        assert "planted-secret" not in path.read_text(errors="replace"), path
