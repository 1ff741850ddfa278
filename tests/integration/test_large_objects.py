"""Objects that are too large for one copy request are copied in parts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from airflow_provider_milvus_backup.core import copier
from airflow_provider_milvus_backup.core.copier import Copy, Progress, copy_objects
from airflow_provider_milvus_backup.core.store import ObjectStore
from demo import servers
from tests.integration.clusters import location

if TYPE_CHECKING:
    import pytest

MIB = 1024**2


def test_an_object_above_the_threshold_is_copied_in_parts_by_the_store(s3: servers.S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copier, "PART", 5 * MIB)
    s3.create_bucket("large-from")
    s3.create_bucket("large-to")
    source, destination = ObjectStore(location(s3, "large-from")), ObjectStore(location(s3, "large-to"))
    content = {"a/large": os.urandom(12 * MIB), "a/small": os.urandom(1000)}
    for key, data in content.items():
        source.write(key, data)
    copies = [Copy(key, key.replace("a/", "b/"), len(data)) for key, data in content.items()]
    progress = Progress(2, sum(copy.size for copy in copies))
    copy_objects(source, destination, copies, progress, multipart_threshold=6 * MIB)
    assert {copy.source: destination.read(copy.destination) for copy in copies} == content
    assert (progress.objects, progress.mode) == (2, "server-side")
    parts = {item.key: item.etag.partition("-")[2] for item in destination.objects("b")}
    assert parts == {"b/large": "3", "b/small": ""}
