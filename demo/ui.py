"""`make demo-ui`: Airflow's UI, scheduler and triggerer in front of two real Milvus and a real S3, with the example DAGs ready to run.

Cluster A holds the demo's collection, cluster B is empty: it is where `milvus_migrate_cluster` moves the collection to, and where
`milvus_restore_drill` restores it for a moment.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path

from . import airflow_home, console, data, servers, stack, standalone
from .demo import migrating

MIGRATION_BUCKET = "migration"
#: DAGs to switch on. Those with a schedule are left off: switched on each runs once at once.
READY = ("milvus_backup_and_restore", "milvus_migrate_cluster")
DAGS = (*READY, "milvus_nightly_backup", "milvus_backup_with_retention", "milvus_restore_drill", "milvus_backup_watchdog")
PARSE_SECONDS = 120.0


def main(interrupt: console.Interrupt) -> int:
    """Run everything until somebody stops it."""
    console.title(f"The Milvus backup provider in the UI of Airflow {version('apache-airflow')}")
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="milvus-backup-ui-")))
        home = directory / "airflow"
        env = airflow_home.environment(home, os.environ) | standalone.settings(home)
        migrated = cleanup.enter_context(migrating(env))

        console.section("Starting")
        s3 = cleanup.enter_context(stack.running_s3(directory))
        s3.create_bucket(MIGRATION_BUCKET)
        a = cleanup.enter_context(stack.running_milvus(directory, s3))
        b = cleanup.enter_context(stack.running_milvus(directory, s3, "b-bucket"))
        data.fill(a.client, "coll", console.line)
        migrated.result()
        connections = _connections(s3, a.milvus, b.milvus)
        airflow_home.import_connections(env, connections)
        console.line(f"connections: {', '.join(connections)}")
        console.line("Airflow starts: scheduler, triggerer, DAG processor, API server")
        airflow = cleanup.enter_context(standalone.running(env))
        _switch_on(airflow)
        console.line("Airflow is healthy, and the example DAGs that run on demand are switched on")

        _print_guide(airflow)
        while airflow.process.poll() is None:
            interrupt.check()
            time.sleep(0.5)
        raise airflow_home.AirflowError(f"Airflow ended by itself; end of its log:\n{airflow.log_path.read_text()[-3000:]}")


def _connections(s3: servers.S3Server, a: servers.MilvusServer, b: servers.MilvusServer) -> airflow_home.Connections:
    """Return the connections of all example DAGs."""
    return {
        "aws_default": airflow_home.s3_connection(s3, "The storage of both clusters"),
        "migration_s3": airflow_home.s3_connection(s3, f"The bucket {MIGRATION_BUCKET}, between the clusters"),
        "milvus_default": airflow_home.milvus_connection(a, "Cluster A"),
        "milvus_a": airflow_home.milvus_connection(a, "Cluster A, where a migration starts"),
        "milvus_b": airflow_home.milvus_connection(b, "Cluster B, where it ends"),
        "milvus_drill": airflow_home.milvus_connection(b, "Cluster B, where backups are restored to look at them"),
    }


def _switch_on(airflow: standalone.Airflow) -> None:
    """Wait until the DAG processor has found the example DAGs, and switch on those that run on demand."""
    deadline = time.monotonic() + PARSE_SECONDS
    missing = set(DAGS)
    while missing:
        if time.monotonic() > deadline:
            errors = airflow.call("GET", "/importErrors")["import_errors"]
            raise airflow_home.AirflowError(f"Airflow has not found {', '.join(sorted(missing))}; import errors: {errors or 'none'}")
        with suppress(airflow_home.AirflowError):
            missing -= {dag["dag_id"] for dag in airflow.call("GET", "/dags")["dags"]}
        time.sleep(0.5)
    for dag_id in READY:
        airflow.call("PATCH", f"/dags/{dag_id}?update_mask=is_paused", {"is_paused": False})


def _print_guide(airflow: standalone.Airflow) -> None:
    console.section("Ready")
    console.plain(f"""\
  address   {airflow.url}
  user      {airflow.user}
  password  {airflow.password}

  Back up and restore    {airflow.url}/dags/milvus_backup_and_restore
                         Trigger (top right), then Trigger again: `coll` becomes `coll_bak`. Click a task for its log.
                         For a second run choose another backup name and another suffix: nothing is ever overwritten unasked.
  Move to cluster B      {airflow.url}/dags/milvus_migrate_cluster
  A task per collection  {airflow.url}/dags/milvus_nightly_backup
  Back up, verify, keep  {airflow.url}/dags/milvus_backup_with_retention
  Restore drill          {airflow.url}/dags/milvus_restore_drill
                         On cluster B, of a backup that the DAG above has made.
  Watchdog               {airflow.url}/dags/milvus_backup_watchdog
                         These four have a schedule: switched on (top left) each runs once at once.
  The connection form    {airflow.url}/connections: edit `milvus_default`, or add one of type Milvus
""")
    console.plain("Ctrl-C stops everything and removes all of it.")


if __name__ == "__main__":
    sys.exit(console.run(main))
