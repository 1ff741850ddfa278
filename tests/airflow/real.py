"""One real Airflow 3 for all tests that need a scheduler and a triggerer: ``airflow standalone`` behind a proxy that can stop imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from demo import airflow_home, standalone
from tests.airflow import dag_runs
from tests.airflow.gates import Stalled, behind, milvus_proxy
from tests.airflow.stack import Stack

FINISHED = {"success", "failed", "upstream_failed", "skipped", "removed"}


def living(home: Path) -> list[int]:
    """Return the processes that were started with this AIRFLOW_HOME."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"AIRFLOW_HOME={home}\0".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def until(happened: Callable[[], Any], what: str, seconds: float = 600, pause: float = 0.1) -> None:
    """Wait until something has happened; a server that does not answer in time is asked again."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError):
            if happened():
                return
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s until {what}"
        time.sleep(pause)


@dataclass
class RealAirflow:
    """A running Airflow, and what is between it and Milvus."""

    airflow: standalone.Airflow
    home: Path
    env: Mapping[str, str]
    imports: Stalled
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @contextmanager
    def stalled_imports(self) -> Iterator[None]:
        """Let Airflow hear that all import jobs still run."""
        self.imports.silent.set()
        try:
            yield
        finally:
            self.imports.silent.clear()

    def processes(self, title: str) -> list[int]:
        """Return the processes of `airflow standalone` whose command line, which Airflow gives them itself, contains a text."""
        found = []
        for process in psutil.Process(self.airflow.process.pid).children(recursive=True):
            try:
                if title in " ".join(process.cmdline()):
                    found.append(process.pid)
            except psutil.NoSuchProcess:
                continue
        return found

    def start_triggerer(self) -> None:
        """Start a triggerer, as `airflow standalone` does not when its own has died."""
        with (self.home / f"triggerer-{len(self._started)}.log").open("wb") as log:
            self._started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "airflow", "triggerer"],
                    env=dict(self.env),
                    cwd=self.home,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def stop_triggerers(self) -> None:
        """End the triggerers that :meth:`start_triggerer` started."""
        for process in self._started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def run(self, dag_id: str, conf: Mapping[str, Any], task_id: str = "restore") -> DagRun:
        """Start a run of a DAG."""
        until(lambda: any(dag["dag_id"] == dag_id for dag in self.airflow.call("GET", "/dags")["dags"]), f"{dag_id} is parsed")
        run_id = self.airflow.call("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": dict(conf)})["dag_run_id"]
        return DagRun(self, dag_id, run_id, task_id)


@dataclass
class DagRun:
    """One run of a DAG with one task."""

    real: RealAirflow
    dag_id: str
    run_id: str
    task_id: str

    @property
    def path(self) -> str:
        """Where the REST API has it."""
        return f"/dags/{self.dag_id}/dagRuns/{self.run_id}"

    def task(self) -> dict[str, Any]:
        """Return the task instance as the REST API tells it."""
        answer: dict[str, Any] = self.real.airflow.call("GET", f"{self.path}/taskInstances/{self.task_id}")
        return answer

    def until(self, *states: str) -> dict[str, Any]:
        """Wait until the task has one of these states, and return it as the REST API tells it."""

        def happened() -> bool:
            state = self.task()["state"]
            assert state in states or state not in FINISHED, f"{self.dag_id} is {state}, not {' or '.join(states)}\n{self.log(1)}"
            return state in states

        until(happened, f"{self.dag_id} is {' or '.join(states)}")
        return self.task()

    def mark_failed(self) -> None:
        """Mark the task failed, as the button does."""
        self.real.airflow.call("PATCH", f"{self.path}/taskInstances/{self.task_id}", {"new_state": "failed"})

    def clear(self) -> None:
        """Clear the task, as the button does."""
        body = {"dry_run": False, "dag_run_id": self.run_id, "task_ids": [self.task_id], "only_failed": False, "reset_dag_runs": True}
        self.real.airflow.call("POST", f"/dags/{self.dag_id}/clearTaskInstances", body)

    def result(self) -> Any:
        """Return what the task returned."""
        return self.real.airflow.call("GET", f"{self.path}/taskInstances/{self.task_id}/xcomEntries/return_value")["value"]

    def log(self, try_number: int) -> str:
        """Return the log of a try."""
        content = self.real.airflow.call("GET", f"{self.path}/taskInstances/{self.task_id}/logs/{try_number}?full_content=true")["content"]
        return "\n".join(str(line) for line in content)


@pytest.fixture(scope="session")
def real_airflow(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAirflow]:
    """Run Airflow with the example DAGs and those of the tests."""
    home = tmp_path_factory.mktemp("standalone")
    dags = home / "dags"
    dags.mkdir()
    for path in (dag_runs.EXAMPLES / "milvus_backup_and_restore.py", dag_runs.DAGS / "kills.py", dag_runs.DAGS / "watches.py"):
        (dags / path.name).symlink_to(path)
    with milvus_proxy(stack) as milvus:
        milvus.instead = imports = Stalled()
        env = (
            airflow_home.environment(home, os.environ)
            | standalone.settings(home)
            | airflow_home.as_environment(behind(stack, milvus=milvus).connections())
            | {
                "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
                "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
                # A triggerer that has died is missed after this many seconds.
                "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
                "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
                # On a busy machine the first answer of the API to a task takes longer than Airflow waits for it, and fails the task.
                "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "180",
                "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "30",
            }
        )
        airflow_home.migrate(env)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(standalone, "START_SECONDS", 900.0)  # on a machine that is busy it has taken minutes
            with standalone.running(env) as airflow:
                assert living(home)
                real = RealAirflow(airflow, home, env, imports)
                try:
                    yield real
                finally:
                    real.stop_triggerers()
        assert living(home) == [], "processes of Airflow were left running"
