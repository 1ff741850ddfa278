"""Kills under a real scheduler and a real triggerer: what a user marks is undone, what dies is gone on with. See conftest.py for where."""

from __future__ import annotations

import os
import signal
from typing import Any

from airflow_provider_milvus_backup.core import imports
from airflow_provider_milvus_backup.core.names import CollectionName, restore_id
from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
from tests.airflow.real import DagRun, RealAirflow, until
from tests.airflow.stack import PARTITIONS, Stack, in_environment


def building(stack: Stack, name: str) -> list[str]:
    return [other for other in stack.collections() if other.startswith(f"{name}__restore_")]


def jobs(stack: Stack, name: str) -> dict[int, imports.JobState]:
    """Return the import jobs that Milvus knows into a collection, and what became of them."""
    with in_environment(stack.connections()):
        server = MilvusBackupHook().get_conn()
        try:
            return {int(job.id): imports.of_grpc(job.id, job).state for job in server.imports(CollectionName("default", name))}
        finally:
            server.close()


def id_of(run: DagRun) -> str:
    return restore_id((run.dag_id, "restore", "-1"), run.run_id)


def all_done(stack: Stack, name: str) -> bool:
    (made,) = building(stack, name)
    return set(jobs(stack, made).values()) == {imports.JobState.COMPLETED}


def begun(real: RealAirflow, stack: Stack, how: str, name: str) -> DagRun:
    """Start a restore, and return when all its jobs are submitted and Airflow waits for them.

    A trigger that is not running yet is not told that its task is marked or cleared; it runs when Milvus is asked.
    """
    run = real.run(f"kills_{how}", {"suffix": name.removeprefix("wide")})
    run.until(how)
    until(lambda: (made := building(stack, name)) and len(jobs(stack, made[0])) == len(PARTITIONS), "all jobs are submitted")
    (made,) = building(stack, name)
    until(lambda: jobs(stack, made).keys() <= real.imports.asked, "Airflow asks for them")
    return run


def is_undone(run: DagRun, stack: Stack, name: str) -> None:
    until(lambda: not building(stack, name), "the restore is undone")
    assert name not in stack.collections()
    assert stack.keys("a-bucket", f"restore-temp-{id_of(run)}/binlogs/") == []
    assert run.task()["state"] == "failed"


def is_complete(run: DagRun, stack: Stack, name: str, wide: Any) -> None:
    assert run.until("success", "failed", "upstream_failed")["state"] == "success", run.log(run.task()["try_number"])
    assert stack.rows(name) == wide
    assert (run.result()["rows"], run.result()["jobs"]) == (len(wide), len(PARTITIONS))
    assert building(stack, name) == []
    assert stack.keys("a-bucket", f"restore-temp-{id_of(run)}/") == []


def test_a_restore_that_is_marked_failed_is_undone_while_it_runs_and_while_it_is_deferred(
    real_airflow: RealAirflow, stack: Stack, wide: Any
) -> None:
    with real_airflow.stalled_imports():
        runs = {how: begun(real_airflow, stack, how, f"wide_real_marked_{how}") for how in ("deferred", "running")}
        for how, run in runs.items():
            # Neither has long to wait until no import runs any more, and what an import runs into is not dropped.
            until(lambda: all_done(stack, f"wide_real_marked_{how}"), "no import runs any more")  # noqa: B023 (called here)
            run.mark_failed()
        for how, run in runs.items():
            is_undone(run, stack, f"wide_real_marked_{how}")
    running = runs["running"]
    until(lambda: "Cancelled" in running.log(running.task()["try_number"]), "the log of the task says that it was stopped")


def test_a_restore_that_is_cleared_while_it_is_deferred_and_one_whose_worker_dies_are_completed_by_the_next_try(
    real_airflow: RealAirflow, stack: Stack, wide: Any
) -> None:
    with real_airflow.stalled_imports():
        cleared = begun(real_airflow, stack, "deferred", "wide_real_cleared")
        killed = begun(real_airflow, stack, "running", "wide_real_killed")
        (worker,) = real_airflow.processes(f"airflow worker -- {killed.task()['id']}")  # the task's own process, not its supervisor
        os.kill(worker, signal.SIGKILL)
        cleared.clear()
        # The old trigger may undo the restore after the new try has looked at it and before it has taken it over: see test_kills.py.
        until(lambda: cleared.task()["try_number"] >= 2 and cleared.task()["state"] == "deferred", "the new try has deferred, too")
        until(lambda: killed.task()["try_number"] == 2 and killed.task()["state"] == "running", "the task is tried again")
    is_complete(cleared, stack, "wide_real_cleared", wide)
    is_complete(killed, stack, "wide_real_killed", wide)
    assert killed.task()["try_number"] == 2
    for name in ("wide_real_cleared", "wide_real_killed"):
        assert len(jobs(stack, name)) == len(PARTITIONS), "nothing is imported twice"


def test_a_restore_whose_triggerer_dies_is_waited_for_by_the_next_triggerer(real_airflow: RealAirflow, stack: Stack, wide: Any) -> None:
    with real_airflow.stalled_imports():
        run = begun(real_airflow, stack, "deferred", "wide_real_moved")
        died = real_airflow.processes("triggerer")
        assert died
        for pid in died:
            os.kill(pid, signal.SIGKILL)
        real_airflow.start_triggerer()
    is_complete(run, stack, "wide_real_moved", wide)
    assert run.task()["try_number"] == 1
    assert len(jobs(stack, "wide_real_moved")) == len(PARTITIONS), "nothing is imported twice"
