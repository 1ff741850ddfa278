"""Running a DAG file by ``dag.test()``, on Airflow 2.11 and on 3.x, and what came of it."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "example_dags"
#: DAG files of the tests. Airflow 3 runs only DAGs of a configured bundle, so conftest.py names it one.
DAGS = Path(__file__).parent / "dags"


def load(path: Path, dag_id: str) -> Any:
    """Return the DAG of a DAG file, parsed as Airflow parses it."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # Airflow 2
        from airflow.models.dagbag import DagBag

    bag = DagBag(dag_folder=str(path))
    assert not bag.import_errors, bag.import_errors
    return bag.dags[dag_id]


@dataclass
class Run:
    """A finished run of a DAG."""

    dag_run: Any

    @property
    def state(self) -> str:
        """``success`` or ``failed``."""
        return str(self.dag_run.state)

    def task(self, task_id: str, map_index: int = -1) -> Any:
        """Return a task instance."""
        found = self.dag_run.get_task_instance(task_id, map_index=map_index)
        assert found is not None, f"{task_id} [{map_index}] did not run"
        return found

    def states(self) -> dict[str, str]:
        """Return the state of every task instance as ``task`` or ``task[0]``."""
        return {ti.task_id + (f"[{ti.map_index}]" if ti.map_index >= 0 else ""): str(ti.state) for ti in self.dag_run.get_task_instances()}

    def result(self, task_id: str, map_index: int = -1) -> Any:
        """Return what a task returned."""
        return self.task(task_id, map_index).xcom_pull(task_ids=task_id, map_indexes=map_index)


def run(dag: Any, conf: dict[str, Any] | None = None, *, by_hand: bool = False) -> Run:
    """Run a DAG in this process and return when it has ended; triggers run here, too.

    :param by_hand: as one is run that somebody triggers: on Airflow 3 without a logical date
    """
    dated = {"logical_date": None} if by_hand and "logical_date" in inspect.signature(dag.test).parameters else {}
    return Run(dag.test(run_conf=conf, **dated))


def context(task: Any, try_number: int = 1, cleared: int = 0, **more: Any) -> Any:
    """Return as much of a task's context as the operators look at.

    :param cleared: how often the task instance was cleared; Airflow then raises ``max_tries`` by what it has tried
    """
    ti = SimpleNamespace(
        dag_id="by_hand",
        run_id="manual__1",
        task_id=task.task_id,
        map_index=-1,
        try_number=try_number,
        max_tries=task.retries + cleared,
    )
    return {"ti": ti, "task_instance": ti, "task": task, "dag_run": SimpleNamespace(run_after=None), **more}


def deferred_by(call: Callable[[], Any]) -> Any:
    """Return the TaskDeferred that a call raises; Airflow has it in another place in each line."""
    try:
        call()
    except BaseException as error:
        if type(error).__name__ != "TaskDeferred":
            raise
        return error
    raise AssertionError("the task did not defer")


def meanwhile(happened: Callable[[], bool], action: Callable[[], Any], pause: float = 0.02) -> threading.Thread:
    """Do something in another thread as soon as something has happened: Airflow calls ``on_kill`` in the middle of ``execute``."""

    def watch() -> None:
        deadline = time.monotonic() + 600
        while not happened() and time.monotonic() < deadline:
            time.sleep(pause)
        action()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def fired(trigger: Any) -> dict[str, Any]:
    """Run a trigger to its end and return the payload of its one event."""

    async def run() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(asyncio.wait_for(run(), 600))
    assert set(payload) == {"status", "message", "backup_name", "restore_id", "deadline"}
    return dict(payload)
