"""`make demo`: back a collection up and restore it beside the original, through Airflow, on a real Milvus and a real S3.

Then compare the two collections row by row. The last line is the result as JSON; the exit code is 0 only when they are identical.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_milvus_backup.core.report import duration

from . import airflow_home, airflow_log, compare, console, data, stack

if TYPE_CHECKING:
    from pymilvus import MilvusClient

DAG_FILE = airflow_home.EXAMPLE_DAGS / "milvus_backup_and_restore.py"
DAG_ID = "milvus_backup_and_restore"
DIFFERENCES_SHOWN = 10


def main(interrupt: console.Interrupt) -> int:
    """Run the demo and return the exit code."""
    console.title(f"Back up and restore a Milvus collection with Airflow {version('apache-airflow')}")
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="milvus-backup-demo-")))
        env = airflow_home.environment(directory / "airflow", os.environ)
        migrated = cleanup.enter_context(migrating(env))

        console.section("1. Servers, from pip wheels, with all their files in a temporary directory")
        s3 = cleanup.enter_context(stack.running_s3(directory))
        cluster = cleanup.enter_context(stack.running_milvus(directory, s3))

        console.section("2. A collection, and changes that are not flushed")
        data.fill(cluster.client, "coll", console.line)

        console.section(f"3. The DAG {DAG_FILE.relative_to(airflow_home.REPO)}")
        console.line("Airflow starts")
        migrated.result()
        connections = {
            "milvus_default": airflow_home.milvus_connection(cluster.milvus, "The demo's Milvus"),
            "aws_default": airflow_home.s3_connection(s3, "The demo's S3"),
        }
        params = run_dag(env | airflow_home.as_environment(connections), interrupt)

        original, restored = params["collection"], params["collection"] + params["suffix"]
        console.section(f"4. Compare {original} and {restored}")
        rows, rows_restored, found = compare_collections(cluster.client, original, restored)
    return _print_result(params["backup_name"], rows, rows_restored, found)


@contextmanager
def migrating(env: dict[str, str]) -> Iterator[Future[None]]:
    """Create Airflow's database while the caller starts servers, as it takes seven seconds."""
    Path(env["AIRFLOW_HOME"]).mkdir()
    with ThreadPoolExecutor(1) as executor:
        yield executor.submit(airflow_home.migrate, env)


def run_dag(env: dict[str, str], interrupt: console.Interrupt) -> dict[str, Any]:
    """Parse the example DAG as Airflow does, run it, and return its params. Imports Airflow, so ``env`` is final."""
    os.environ.clear()
    os.environ.update(env)
    started = time.monotonic()
    import airflow  # noqa: F401 (configures logging)

    airflow_log.watch(console.line)
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(DAG_FILE))
    if DAG_ID not in bag.dags:
        raise airflow_home.AirflowError(f"{DAG_FILE} has no DAG {DAG_ID}: {bag.import_errors or 'no error'}")
    dag = bag.dags[DAG_ID]
    console.line(f"DAG {DAG_ID} parsed: {' >> '.join(dag.task_ids)}")
    console.line("Airflow starts its API inside of this process: the first task waits for it, later ones do not")
    run = dag.test()
    interrupt.check()
    if run.state != "success":
        raise airflow_home.AirflowError(f"the DAG run ended as {run.state}; the reason is in its log above")
    console.line(f"DAG run: {run.state}, in {duration(time.monotonic() - started)} with the start of Airflow")
    return dict(dag.params)


def compare_collections(client: MilvusClient, original: str, restored: str) -> tuple[int, int, list[str]]:
    """Compare two collections; return the rows of each and the first differences."""
    shapes = data.shape(client, original), data.shape(client, restored)
    found = [f"{key}: {value} became {shapes[1][key]}" for key, value in shapes[0].items() if shapes[1][key] != value]
    client.load_collection(restored)
    before, after = data.read(client, original), data.read(client, restored)
    found += islice(compare.differences(before, after), DIFFERENCES_SHOWN)
    for partition in before:
        console.line(f"partition {partition:10} {len(before[partition]):,} rows, restored {len(after.get(partition, {})):,}")
    if compare.count(before) != data.ROWS:
        found.append(f"{original} itself has {compare.count(before):,} rows and should have {data.ROWS:,}")
    if not found:
        console.line("identical: every value of every row, vectors bit by bit, JSON and dynamic fields")
        console.line(f"identical: {', '.join(shapes[0])} ({shapes[0]['index']['index_type']}, {shapes[0]['load state'].lower()})")
    return compare.count(before), compare.count(after), found


def _print_result(backup_name: str, rows: int, rows_restored: int, found: list[str]) -> int:
    for difference in found[:DIFFERENCES_SHOWN]:
        console.line(f"DIFFERENT {difference}")
    console.plain()
    seconds = round(console.elapsed(), 1)
    result = {"backup": backup_name, "rows": rows, "rows_restored": rows_restored, "identical": not found, "seconds": seconds}
    console.plain(json.dumps(result))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(console.run(main))
