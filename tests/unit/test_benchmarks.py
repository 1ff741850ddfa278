"""What the benchmarks measure is a whole backup, also after Milvus is asked for more than before."""

from __future__ import annotations

from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.verifying import verify
from benchmarks import slow_s3
from benchmarks.collection import Quiet, Shape, backup_run


def test_a_backup_of_the_benchmarks_is_complete() -> None:
    shape = Shape(segments=2, logs=1)
    with slow_s3.in_process(shape.sizes()) as endpoint:
        run = backup_run(endpoint, shape)
        summary = run.backup("my_backup")
        assert sum(collection.objects for collection in summary.collections) == shape.objects
        verified = verify(run.destination, "my_backup", Owner(), Quiet())
    assert (verified.ok, verified.objects) == (True, shape.objects)
