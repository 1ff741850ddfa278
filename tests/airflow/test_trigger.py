"""The trigger: what it persists, what it reports of real import jobs, and that it never blocks the triggerer's loop."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import imports
from airflow_provider_milvus_backup.core.errors import ImportFailed, ServerUnreachable
from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
from airflow_provider_milvus_backup.triggers import imports as triggers
from airflow_provider_milvus_backup.triggers.imports import MilvusImportTrigger
from tests.airflow.dag_runs import deferred_by, fired
from tests.airflow.stack import Stack, broken_backup

#: How the first release persists a deferred restore. Triggers of that release must start after any upgrade: never change, only add.
GOLDEN = Path(__file__).parent / "golden" / "import_trigger.json"
MAX_LAG = """
import asyncio, json, sys, time
from airflow_provider_milvus_backup._compat import get_connection_async
from airflow_provider_milvus_backup.triggers.imports import MilvusImportTrigger
assert "pymilvus" not in sys.modules and "grpc" not in sys.modules
worked, waited = [], []

async def heart():
    while True:
        work, wall = time.thread_time(), time.monotonic()
        await asyncio.sleep(0.01)
        worked.append(time.thread_time() - work)
        waited.append(time.monotonic() - wall - 0.01)

async def main():
    await get_connection_async("milvus_default")  # what Airflow imports for it is not what is measured
    beating = asyncio.create_task(heart())
    await asyncio.sleep(0.2)
    events = [event.payload async for event in MilvusImportTrigger("milvus_default", [int(sys.argv[1])], poll_interval=0.3).run()]
    beating.cancel()
    return events

events = asyncio.run(main())
print(json.dumps({"events": events, "worked": max(worked), "waited": max(waited), "imported": "pymilvus" in sys.modules}))
"""


def test_the_loop_is_never_blocked_not_even_by_the_first_import_of_pymilvus(jobs: list[int]) -> None:
    waited = []
    for _ in range(3):  # a busy machine may stall one process; what blocks the loop blocks it in each
        done = subprocess.run([sys.executable, "-c", LAG, str(jobs[0])], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout.splitlines()[-1])
        assert [event["status"] for event in answer["events"]] == ["success"]
        assert answer["imported"]
        assert answer["worked"] < MAX_LAG, "the loop's thread itself was busy, which no load of the machine explains"
        waited.append(answer["waited"])
        if waited[-1] < 2 * MAX_LAG:
            break
    assert min(waited) < 2 * MAX_LAG
