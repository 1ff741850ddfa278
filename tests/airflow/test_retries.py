"""Retries, clears and timeouts: what a further try goes on with, and what it returns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_milvus_backup._compat import AirflowFailException
from airflow_provider_milvus_backup.core import errors
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.plan import BackupPlan
from airflow_provider_milvus_backup.core.server import MilvusServer
from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
from airflow_provider_milvus_backup.operators.backup import MilvusBackupOperator
from airflow_provider_milvus_backup.operators.restore import MilvusRestoreOperator
from tests.airflow import dag_runs
from tests.airflow.dag_runs import context, deferred_by, fired
from tests.airflow.gates import Gate, behind, s3_proxy, stalled_imports
from tests.airflow.stack import PARTITIONS, Stack, in_environment


def backup(name: str, **more: Any) -> MilvusBackupOperator:
    return MilvusBackupOperator(task_id="backup", backup_name=name, collections=["tags"], backup_bucket="backups", **more)


def restore(suffix: str, **more: Any) -> MilvusRestoreOperator:
    options = {"backup_name": "wide", "backup_bucket": "backups", "poll_interval": 0.5, "load": "always", **more}
    return MilvusRestoreOperator(task_id=f"restore{suffix}", suffix=suffix, **options)


def jobs(name: str) -> list[int]:
    """Return the import jobs that Milvus knows into a collection."""
    server = MilvusBackupHook().get_conn()
    try:
        return [int(job.id) for job in server.imports(CollectionName("default", name))]
    finally:
        server.close()


#: Seconds that one try after the other has: on a machine that is busy the first may be over before there is anything to wait for.
TIMEOUTS = [3 * 2**number for number in range(8)]


class WorkerDied(BaseException):
    """What no code of ours catches, as it catches no SIGKILL."""


# --- retries -------------------------------------------------------------------------------------------------------------


def out_of_time(run: Callable[[float], Any], text: str, said: list[str]) -> None:
    """Run it with more and more time until its error is this text; ``said`` gets the error of every run."""
    for timeout in TIMEOUTS:
        with pytest.raises(errors.WaitTimeout) as raised:
            run(timeout)
        said.append(str(raised.value))
        if re.fullmatch(text, said[-1]):
            return
    pytest.fail(f"none of these is {text!r}: {said}")


def test_a_retry_under_airflow_returns_what_the_committed_backup_and_the_finished_restore_of_the_first_try_would_have(
    connected: Stack, airflow_db: object, wide: Any
) -> None:
    run = dag_runs.run(dag_runs.load(dag_runs.DAGS / "tries.py", "lost_answers"))
    assert run.states() == {"backup": "success", "restore": "success"}
    assert [run.task(task).try_number for task in ("backup", "restore")] == [2, 2]
    attempt, summary = (
        json.loads(connected.s3.client().get_object(Bucket="backups", Key=f"backup/lost_answers/provider/{file}.json")["Body"].read())
        for file in ("attempt", "summary")
    )
    assert attempt["owner"]["attempt"] == 1, "the second try has written nothing"
    assert run.result("backup") == summary
    assert run.result("restore")["rows"] == len(wide)
    assert len(jobs("wide_lost")) == len(PARTITIONS), "nothing is imported twice"
    assert connected.rows("wide_lost") == wide
    assert connected.staged(run.result("restore")["restore_id"]) == []


def test_a_retry_goes_on_with_the_restore_of_a_try_that_died_while_it_submitted_jobs(
    connected: Stack, wide: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_import = MilvusServer.submit_import
    submitted: list[int] = []

    def dies(*arguments: Any) -> int:
        submitted.append(submit_import(*arguments))
        if len(submitted) == 2:
            raise WorkerDied  # Milvus has the job, but nobody has written its id down
        return submitted[-1]

    task = restore("_died")
    with monkeypatch.context() as patch:
        patch.setattr(MilvusServer, "submit_import", dies)
        with pytest.raises(WorkerDied):
            task.execute(context(task))

    again = restore("_died")
    summary = again.execute(context(again, try_number=2))
    assert summary["jobs"] == len(jobs("wide_died")) == len(PARTITIONS)
    assert set(submitted) < set(jobs("wide_died"))
    assert connected.rows("wide_died") == wide
    assert connected.staged(summary["restore_id"]) == []


# --- clears --------------------------------------------------------------------------------------------------------------


def test_a_retry_of_a_committed_backup_returns_its_summary_and_a_cleared_task_does_as_it_was_told(connected: Stack) -> None:
    first = backup("cleared").execute(context(backup("cleared")))
    for if_exists in ("fail", "skip", "replace", "resume"):
        task = backup("cleared", if_exists=if_exists)
        assert task.execute(context(task, try_number=2)) == first, f"a retry with if_exists={if_exists}"

    connected.client().insert("tags", [{"name": "tag-cleared", "vector": [0.25] * 8, "title": "late", "doc": {}}])
    task = backup("cleared")
    with pytest.raises(AirflowFailException, match=r"BackupExists: backup 'cleared' already exists .*if_exists='skip'.*'replace'"):
        task.execute(context(task, try_number=3, cleared=2))
    for if_exists in ("skip", "resume"):
        task = backup("cleared", if_exists=if_exists)
        assert task.execute(context(task, try_number=3, cleared=2)) == first
    task = backup("cleared", if_exists="replace")
    second = task.execute(context(task, try_number=3, cleared=2))
    assert second["rows"] == first["rows"] + 1
    task = backup("cleared", if_exists="fail")
    assert task.execute(context(task, try_number=4, cleared=2)) == second, "the retry of the cleared task"


def test_a_cleared_restore_is_another_restore(connected: Stack, backed_up: Any) -> None:
    options = {"backup_name": "shared", "load": "never"}
    task = restore("_again", **options)
    first = task.execute(context(task))
    retry = restore("_again", **options)
    assert retry.execute(context(retry, try_number=2)) == first

    cleared = restore("_again", **options)
    with pytest.raises(AirflowFailException, match=r"TargetExists: default\.coll_again already exists"):
        cleared.execute(context(cleared, try_number=3, cleared=2))
    cleared = restore("_again", **options, if_exists="replace")
    before = connected.client().describe_collection("coll_again")["collection_id"]
    second = cleared.execute(context(cleared, try_number=4, cleared=3))
    assert connected.client().describe_collection("coll_again")["collection_id"] != before
    assert second["rows"] == first["rows"]
    assert [name for name in connected.collections() if name.startswith("coll_again__restore_")] == []


# --- timeouts ------------------------------------------------------------------------------------------------------------


def test_a_backup_that_times_out_says_how_far_it_is_and_retries_complete_it(connected: Stack) -> None:
    text = r"out of time while copying: [1-9]\d* of \d+ objects are there, and a retry goes on from here"
    said: list[str] = []

    def run(timeout: float) -> Any:
        task = MilvusBackupOperator(
            task_id="backup",
            backup_name="late",
            collections=["coll"],
            strategy="skip_flush",
            config={"backup": {"parallelism": {"copydata": 2}}},
            backup_bucket="backups",
            timeout=timeout,
        )
        return task.execute(context(task, try_number=len(said) + 1))

    with s3_proxy(connected) as s3, in_environment(behind(connected, s3=s3).connections()):

        def held(timeout: float) -> None:
            with Gate("copy", 5).closed() as gate:
                s3.before = gate
                run(timeout)

        out_of_time(held, text, said)
        s3.before = None
        summary = run(TIMEOUTS[-1])
    assert summary["rows"] == sum(c["rows"] for c in summary["collections"]) > 1000
    MilvusBackupHook(backup_bucket="backups").restore("late", suffix="_from_late", load="never")


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_restore_that_times_out_names_what_runs_on_and_retries_complete_it(
    connected: Stack, wide: dict[Any, Any], deferrable: bool
) -> None:
    suffix = f"_late_{deferrable}".lower()
    text = (
        r"out of time while import jobs [\d, ]+ are still running in Milvus. "
        r"A retry goes on with restore (\w+) of backup 'wide', and so does MilvusImportSensor\(backup_name='wide', restore_id='\1'\)"
    )
    said: list[str] = []

    def run(timeout: float) -> Any:
        task, attempt = restore(suffix, deferrable=deferrable, timeout=timeout), len(said) + 1
        if not deferrable:
            return task.execute(context(task, try_number=attempt))
        event = fired(deferred_by(lambda: task.execute(context(task, try_number=attempt))).trigger)
        resumed = restore(suffix, deferrable=True, timeout=timeout)
        return resumed.execute_complete(context(resumed, try_number=attempt), event)

    with stalled_imports(connected):
        out_of_time(run, text, said)
    summary = run(TIMEOUTS[-1])
    assert summary["jobs"] == len(jobs(f"wide{suffix}")) == len(PARTITIONS), "nothing is imported twice"
    assert connected.rows(f"wide{suffix}") == wide
    assert connected.staged(summary["restore_id"]) == []


@pytest.mark.parametrize("timeout", [0, -1, "soon", float("inf"), float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout: Any) -> None:
    for task in (backup("never", timeout=timeout), restore("_never", timeout=timeout)):
        with pytest.raises(AirflowFailException, match=r"ConfigError: timeout .* is not a number of seconds above 0, nor a timedelta"):
            task.execute(context(task))


def test_the_three_phases_of_a_backup_run_in_three_processes_that_share_only_the_plan(connected: Stack) -> None:
    plan = MilvusBackupHook().plan_backup("phases", ["coll"])
    MilvusBackupHook().copy_backup(BackupPlan.from_json(plan.to_json()))
    assert connected.keys("a-bucket", "backup/phases/meta/") == []
    summary = MilvusBackupHook().commit_backup(BackupPlan.from_json(plan.to_json()))
    assert (summary["name"], summary["objects"]) == ("phases", len(connected.keys("a-bucket", "backup/phases/binlogs/")))
    assert connected.keys("a-bucket", "backup/phases/provider/lease.json") == [], "no phase keeps the lease"
    MilvusBackupHook().restore("phases", suffix="_phases", load="always")
    assert connected.rows("coll_phases") == connected.rows("coll")
    connected.drop("coll_phases")
