"""wait_lag, wait_cpu, wait_memory: 1,000 restores that wait in one triggerer's loop, each for one import job of the same Milvus.

Milvus is a gRPC server in another process that says "running"; the loop, the triggers and the channel are the real ones.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from . import Result, load, peak_mb, remark
from .copying import cpu_seconds

WAITS, SECONDS, POLL = 1000, 40.0, 5.0


def run() -> Iterator[Result]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    try:
        child = subprocess.run([sys.executable, "-m", __name__, str(ours.recv())], stdout=subprocess.PIPE, check=True)
    finally:
        server.kill()
        server.join()
    figures = json.loads(child.stdout.splitlines()[-1])
    remark(f"{WAITS:,} waits for {SECONDS:.0f} s: {figures}, {load()}")
    yield Result("wait_lag_p99", figures["lag_p99_ms"], "ms", None)
    yield Result("wait_lag_max", figures["lag_max_ms"], "ms", None)
    yield Result("wait_cpu", figures["cpu_percent"], "% of a core", None)
    yield Result("wait_memory", figures["peak_mb"], "MB", None)


def _serve(port: Any) -> None:
    import grpc
    from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

    class Busy(milvus_pb2_grpc.MilvusServiceServicer):  # type: ignore[misc]
        def GetImportState(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
            return milvus_pb2.GetImportStateResponse(state=2, id=request.task)

    server = grpc.server(ThreadPoolExecutor(4))
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(Busy(), server)
    bound = server.add_insecure_port("127.0.0.1:0")
    server.start()
    port.send(bound)
    server.wait_for_termination()


async def measure(waits_for: Sequence[Sequence[int]], seconds: float, *, rest: bool = False) -> dict[str, float]:
    """Let triggers wait for these jobs, which must not end, and return what the loop was like."""
    from airflow_provider_milvus_backup.triggers.imports import MilvusImportTrigger

    lags: list[float] = []

    async def heart() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.02)
            lags.append(time.monotonic() - before - 0.02)

    async def wait(job_ids: Sequence[int]) -> None:
        async for event in MilvusImportTrigger("milvus_default", job_ids, "backup", "restore", poll_interval=POLL, rest=rest).run():
            print(event, file=sys.stderr)

    waits = [asyncio.ensure_future(wait(job_ids)) for job_ids in waits_for]
    beating = asyncio.ensure_future(heart())
    await asyncio.sleep(10)  # the start, with its imports in a thread, is measured by the lag alone
    cpu, started = cpu_seconds(), time.monotonic()
    await asyncio.sleep(seconds)
    cpu, seconds = cpu_seconds() - cpu, time.monotonic() - started
    assert not any(one.done() for one in waits)
    for task in (*waits, beating):
        task.cancel()
    await asyncio.gather(*waits, beating, return_exceptions=True)
    ordered = sorted(lags)
    return {
        "lag_p99_ms": round(1000 * ordered[int(len(ordered) * 0.99)], 1),
        "lag_max_ms": round(1000 * ordered[-1], 1),
        "cpu_percent": round(100 * cpu / seconds, 1),
        "peak_mb": round(peak_mb()),
    }


if __name__ == "__main__":
    os.environ["AIRFLOW_CONN_MILVUS_DEFAULT"] = json.dumps({"conn_type": "milvus", "host": "127.0.0.1", "port": int(sys.argv[1])})
    print(json.dumps(asyncio.run(measure([[job_id] for job_id in range(1, WAITS + 1)], SECONDS))))
