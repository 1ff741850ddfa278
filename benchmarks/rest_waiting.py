"""rest_wait_*: the triggerer's loop while 1,000 import jobs are asked for over REST: by one trigger, and by 1,000 triggers of one job each.

Milvus is a contract server in another process whose jobs go on importing; the loop, the triggers and the connections are the real ones.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from . import Result, load, remark
from .contract import contract_process
from .waiting import measure

VERSION, JOBS, FILES, SECONDS = "2.6.20", 1000, 4, 30.0
NAME = ("default", "coll")


def run() -> Iterator[Result]:
    for shape, name, targets in (("one", "rest_wait", ("<= 30", None, "<= 50")), ("each", "rest_waits", (None, None, None))):
        with contract_process(VERSION) as milvus:
            jobs = json.dumps(milvus.call(submit))
            arguments = [sys.executable, "-m", __name__, str(milvus.port), shape]
            child = subprocess.run(arguments, input=jobs, stdout=subprocess.PIPE, check=True, text=True)
        figures = json.loads(child.stdout.splitlines()[-1])
        remark(f"{JOBS:,} jobs, {'a trigger each' if shape == 'each' else 'one trigger'}, {SECONDS:.0f} s: {figures}, {load()}")
        yield Result(f"{name}_lag_p99", figures["lag_p99_ms"], "ms", targets[0])
        yield Result(f"{name}_lag_max", figures["lag_max_ms"], "ms", targets[1])
        yield Result(f"{name}_cpu", figures["cpu_percent"], "% of a core", targets[2])


def submit(server: Any) -> list[int]:
    """Make the jobs, which never end, and return their ids."""
    from tests.contract import scenes, shapes
    from tests.contract.jobs import Fate

    model = server.model
    model.create_collection(NAME, shapes.schema(NAME[1]), shards=1)
    for number in range(FILES):
        model.insert(NAME, [shapes.row(number)])
        model.flush(NAME)
    collection = model.collection(NAME)
    model.phase_seconds = 0.0
    model.fates.extend([Fate(hang="Importing")] * JOBS)
    return [model.import_job(NAME, [scenes.dirs(collection)], scenes.options(model), "_default").id for _ in range(JOBS)]


if __name__ == "__main__":
    port, shape = sys.argv[1:]
    os.environ["AIRFLOW_CONN_MILVUS_DEFAULT"] = json.dumps({"conn_type": "milvus", "host": "127.0.0.1", "port": int(port)})
    ids = json.load(sys.stdin)
    print(json.dumps(asyncio.run(measure([[one] for one in ids] if shape == "each" else [ids], SECONDS, rest=True))))
