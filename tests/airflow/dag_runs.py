"""Running a DAG file by ``dag.test()``, on Airflow 2.11 and on 3.x, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[2]
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
        return {
            ti.task_id + (f"[{ti.map_index}]" if ti.map_index >= 0 else ""): str(ti.state) for ti in self.dag_run.get_task_instances()
        }

    def result(self, task_id: str, map_index: int = -1) -> Any:
        """Return what a task returned."""
        return self.task(task_id, map_index).xcom_pull(task_ids=task_id, map_indexes=map_index)


def run(dag: Any, conf: dict[str, Any] | None = None) -> Run:
    """Run a DAG in this process and return when it has ended; triggers run here, too."""
    return Run(dag.test(run_conf=conf))


def utc(*parts: int) -> datetime:
    """Return a moment in UTC."""
    return datetime(*parts, tzinfo=timezone.utc)  # type: ignore[misc,arg-type]
