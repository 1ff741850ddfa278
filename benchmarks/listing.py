"""list_requests: how many the plan for one collection makes, with 10 and with 200 segments of the same 4,000 objects."""

from __future__ import annotations

from collections.abc import Iterator

from . import Result, remark, slow_s3
from .collection import Shape, backup_run

SHAPES = (Shape(segments=10, logs=20), Shape(segments=200, logs=1))


def run() -> Iterator[Result]:
    for shape in SHAPES:
        with slow_s3.in_process(shape.sizes(), copy_seconds=0) as endpoint:
            backup = backup_run(endpoint, shape)
            plan = backup.plan("my_backup")
            planning = slow_s3.requests(endpoint)["list"]
            backup.copy(plan)
            backup.commit(plan)
            everything = slow_s3.requests(endpoint)["list"]
        remark(f"{shape.segments} segments, {shape.objects:,} objects: {planning} to plan, {everything} with copy and commit")
        limit = 2 * (shape.objects / 1000 + 1)
        yield Result(f"list_requests_{shape.segments}_segments", planning, "requests", f"<= {limit:g}")
