"""stream_rate, stream_memory: copying between two endpoints that cannot see each other, on two real SeaweedFS servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from airflow_provider_milvus_backup.core.copier import MIB, Copy, Progress, copy_objects
from airflow_provider_milvus_backup.core.store import ObjectStore
from demo import servers

from . import Result, load, peak_mb, remark
from .collection import BUCKET, location

SIZES = [200 * MIB, *[16 * MIB] * 16, *[MIB] * 64]
RUNS = 3


def run() -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as directory, _pair(Path(directory)) as (source, destination):
        client = source.client()
        for key, size in _keys():
            client.put_object(Bucket=BUCKET, Key=key, Body=os.urandom(size))
        runs = []
        for number in range(RUNS):
            endpoints = [f"{server.endpoint_url},{server.access_key},{server.secret_key}" for server in (source, destination)]
            child = subprocess.run([sys.executable, "-m", __name__, *endpoints, f"copy-{number}/"], stdout=subprocess.PIPE, check=True)
            runs.append(json.loads(child.stdout))
            remark(f"{sum(SIZES) / MIB:.0f} MiB in {len(SIZES)} objects: {runs[-1]}, {load()}")
    yield Result("stream_rate", max(one["mib_per_second"] for one in runs), "MiB/s", None)
    yield Result("stream_memory", max(one["peak_mb"] for one in runs), "MB", None)


def _keys() -> list[tuple[str, int]]:
    return [(f"object-{number:03}", size) for number, size in enumerate(SIZES)]


class _pair:  # noqa: N801 (a context manager of two)
    def __init__(self, directory: Path) -> None:
        self.contexts = [servers.s3_server(directory / name) for name in ("source", "destination")]

    def __enter__(self) -> list[servers.S3Server]:
        entered = [context.__enter__() for context in self.contexts]
        for server in entered:
            server.create_bucket(BUCKET)
        return entered

    def __exit__(self, *error: object) -> None:
        for context in self.contexts:
            context.__exit__(None, None, None)


def _child(source: str, destination: str, prefix: str) -> None:
    stores = []
    for end in (source, destination):
        endpoint, *keys = end.split(",")
        stores.append(ObjectStore(location(endpoint, keys, "")))
    before = round(peak_mb())
    progress = Progress(len(SIZES), sum(SIZES))
    here, there = stores
    copy_objects(here, there, [Copy(key, prefix + key, size) for key, size in _keys()], progress)
    rate = round(progress.bytes / MIB / progress.seconds, 1)
    assert progress.mode == "streamed"
    assert sorted(item.size for item in there.objects(prefix)) == sorted(SIZES)
    print(json.dumps({"mib_per_second": rate, "peak_mb": round(peak_mb()), "peak_mb_before": before}))


if __name__ == "__main__":
    _child(*sys.argv[1:])
