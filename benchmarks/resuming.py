"""resume_seconds, resume_memory: a backup of 100,000 objects that died half-way, and the retry. Children as in :mod:`.copying`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from unittest import mock

from airflow_provider_milvus_backup.core import backup as engine

from . import Result, load, peak_mb, remark, slow_s3
from .collection import Shape, backup_run
from .copying import cpu_seconds

SHAPE = Shape(segments=1000, logs=5)


def run() -> Iterator[Result]:
    with slow_s3.in_process(SHAPE.sizes()) as endpoint:
        for part in ("half", "whole"):
            child = subprocess.run([sys.executable, "-m", __name__, endpoint, part], stdout=subprocess.PIPE, check=True)
        copies = slow_s3.requests(endpoint)["copy"]
    figures = json.loads(child.stdout)
    remark(f"{SHAPE.objects:,} objects, {copies:,} copies in both tries: {figures}, {load()}")
    assert copies == SHAPE.objects
    yield Result("resume_seconds", figures["seconds"], "s", None)
    yield Result("resume_memory", figures["peak_mb"], "MB", "<= 250")


def _child(endpoint: str, part: str) -> None:
    import grpc  # noqa: F401 (a real backup has it)

    backup, started, cpu = backup_run(endpoint, SHAPE), time.monotonic(), cpu_seconds()
    if part == "half":
        original = engine.copy_objects

        def half(source: object, destination: object, copies: object, *args: object, **more: object) -> None:
            original(source, destination, islice(copies, SHAPE.objects // 2), *args, **more)  # type: ignore[arg-type,call-overload]
            raise KeyboardInterrupt

        with mock.patch.object(engine, "copy_objects", half):
            try:
                backup.backup("my_backup")
            except KeyboardInterrupt:
                return
    backup.backup("my_backup")
    figures = {"seconds": round(time.monotonic() - started, 1), "cpu": round(cpu_seconds() - cpu, 1), "peak_mb": round(peak_mb())}
    print(json.dumps(figures))


if __name__ == "__main__":
    _child(*sys.argv[1:])
