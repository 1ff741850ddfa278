"""The preflight on real servers: all passes where all is well, each line fails where its end is broken, and nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.checking import FAIL, PASS, SKIP, WARN
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.preflight import NAMES, check
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.settings import Settings
from demo import servers
from tests.integration import data
from tests.integration.clusters import A_BUCKET, ONLY_VAULT, READER, STRANGER, VAULT, Cluster, everything, location

NAME = CollectionName("default", "checked")
#: What depends on the version and on ports that tests do not open.
ELSEWHERE = {"milvus.management"}
PASSWORD = "Secret12!"


@pytest.fixture(scope="module", autouse=True)
def shape(a: Cluster) -> Iterator[data.Collection]:
    """A collection with a sealed segment."""
    yield a.create(data.docs(NAME.collection), range(50))
    a.drop(NAME)


@pytest.fixture(scope="module")
def users(b: Cluster) -> Iterator[Cluster]:
    """Users of Milvus B: one without any privilege, and one who may look at everything."""
    client = b.client()
    b.create(data.docs(NAME.collection), range(50))
    client.create_role("looker")
    for user in ("nobody", "looker"):
        client.create_user(user, PASSWORD)
    client.grant_role("looker", "looker")
    for kind, privilege in (("Global", "ShowCollections"), ("Global", "DescribeCollection"), ("Global", "ListDatabases")):
        client.grant_privilege("looker", kind, privilege, "*")
    for privilege in ("ShowPartitions", "IndexDetail", "Load"):  # 2.3 tells only who may load whether something is loaded
        client.grant_privilege("looker", "Collection", privilege, "*")
    yield b
    b.drop(NAME)


def checked(cluster: Cluster, settings: Settings | None = None, collections: Any = None, **options: Any) -> dict[str, dict[str, Any]]:
    """Check, and return the lines by name; both buckets and all collections are as they were."""
    before = everything(cluster)
    found = check(settings or cluster.settings, Reporter(cluster.log), Patience(), collections, **options)
    assert everything(cluster) == before
    assert [line["name"] for line in found["checks"]] == list(NAMES)
    for line in found["checks"]:
        assert bool(line["remedy"]) == (line["status"] in (WARN, FAIL)), line
        for secret in (cluster.s3.secret_key, "secret of", PASSWORD, "wrong-password"):
            assert secret not in line["message"] + line["remedy"]
    lines = {line["name"]: line for line in found["checks"]}
    failed = [line for line in found["checks"] if line["status"] == FAIL]
    assert found["status"] == (FAIL if failed else WARN if any(line["status"] == WARN for line in found["checks"]) else PASS)
    return lines


def with_status(lines: dict[str, dict[str, Any]], status: str) -> list[str]:
    return [name for name, line in lines.items() if line["status"] == status and name not in ELSEWHERE]


def test_where_all_is_well_all_passes(a: Cluster) -> None:
    lines = checked(a, collections=str(NAME))
    assert (with_status(lines, FAIL), with_status(lines, WARN)) == ([], [])
    assert with_status(lines, SKIP) == ["milvus.rbac", "backup_storage.versioning", "backup_storage.object_lock"]
    assert lines["milvus.collections"]["message"].startswith("1 of ")
    assert "of segment" in lines["milvus_storage.segment"]["message"]
    assert "by itself" in lines["backup_storage.copy"]["message"]
    assert "copied in parts" in lines["backup_storage.multipart"]["message"]


def test_another_bucket_of_the_same_store_passes_too(a: Cluster, s3: servers.S3Server) -> None:
    lines = checked(a, replace(a.settings, backup_storage=location(s3, VAULT, "deep/backups")), str(NAME))
    assert (with_status(lines, FAIL), with_status(lines, WARN), with_status(lines, SKIP)) == ([], [], ["milvus.rbac"])


def test_another_endpoint_warns_that_bytes_go_through_the_worker_and_how_fast(a: Cluster, other_s3: servers.S3Server) -> None:
    lines = checked(a, replace(a.settings, backup_storage=location(other_s3, VAULT, "backup", ONLY_VAULT)), str(NAME))
    assert with_status(lines, FAIL) == []
    assert "because the storages have different endpoints, here about" in lines["backup_storage.copy"]["message"]
    assert "uploaded in parts" in lines["backup_storage.multipart"]["message"]


def test_a_wrong_root_path_fails_and_the_right_one_is_named(a: Cluster) -> None:
    lines = checked(a, replace(a.settings, milvus_storage=replace(a.storage, root_path="elsewhere")), str(NAME))
    assert with_status(lines, FAIL) == ["milvus_storage.segment"]
    assert lines["milvus_storage.segment"]["remedy"] == "set root_path of the Milvus connection to 'files'"


def test_the_bucket_of_another_milvus_fails_and_what_else_can_be_checked_is(a: Cluster, s3: servers.S3Server) -> None:
    lines = checked(a, replace(a.settings, milvus_storage=location(s3, VAULT, "files")), str(NAME))
    assert with_status(lines, FAIL) == ["milvus_storage.segment"]
    assert {"milvus_storage.read", "backup_storage.copy"} <= set(with_status(lines, SKIP))
    assert {"backup_storage.write", "backup_storage.delete", "clocks", "milvus.restore_privileges"} <= set(with_status(lines, PASS))


def test_a_bucket_that_does_not_exist_and_a_key_of_somebody_else_fail(a: Cluster, s3: servers.S3Server) -> None:
    absent = checked(a, replace(a.settings, milvus_storage=location(s3, "absent", "files")), str(NAME))
    assert with_status(absent, FAIL) == ["milvus_storage.list"]
    assert "the bucket does not exist" in absent["milvus_storage.list"]["message"]
    stranger = checked(a, replace(a.settings, backup_storage=location(s3, VAULT, "backup", STRANGER)), str(NAME))
    assert with_status(stranger, FAIL) == ["backup_storage.list"]
    assert "access denied" in stranger["backup_storage.list"]["message"]


def test_a_key_that_may_only_read_fails_where_it_would_write(a: Cluster, s3: servers.S3Server) -> None:
    reading = replace(a.settings, backup_storage=location(s3, VAULT, "backup", READER))
    lines = checked(a, reading, str(NAME))
    assert with_status(lines, FAIL) == ["backup_storage.write"]
    assert "s3:PutObject" in lines["backup_storage.write"]["remedy"]
    both = replace(reading, milvus_storage=location(s3, A_BUCKET, "files", READER))
    assert with_status(checked(a, both, str(NAME)), FAIL) == ["backup_storage.write", "restore.staging"]
    assert with_status(checked(a, both, str(NAME), include_restore=False), FAIL) == ["backup_storage.write"]


def test_a_backup_root_inside_milvuss_own_fails_before_a_probe_is_written(a: Cluster) -> None:
    inside = replace(a.settings, backup_storage=replace(a.storage, root_path="files/backup"))
    assert with_status(checked(a, inside, str(NAME)), FAIL) == ["backup_storage.place"]


def test_a_selection_that_picks_nothing_fails(a: Cluster) -> None:
    lines = checked(a, collections="checkt")
    assert with_status(lines, FAIL) == ["milvus.collections"]
    assert "checked" in lines["milvus.collections"]["message"], "the nearest name"


def test_a_wrong_password_fails_once_and_the_storages_are_checked(users: Cluster) -> None:
    wrong = replace(users.settings, milvus=replace(users.address, password="wrong-password"))
    lines = checked(users, wrong, str(NAME))
    assert (lines["milvus.connect"]["status"], with_status(lines, FAIL)) == (PASS, ["milvus.login"])
    assert [name for name, line in lines.items() if line["status"] == PASS and name.startswith("milvus.")] == ["milvus.connect"]
    assert lines["backup_storage.delete"]["status"] == PASS


def test_root_may_everything(users: Cluster) -> None:
    assert with_status(checked(users, collections=str(NAME)), FAIL) == []


def test_privileges_that_are_missing_are_named_and_nothing_was_tried_out(users: Cluster) -> None:
    def of(user: str) -> dict[str, dict[str, Any]]:
        return checked(users, replace(users.settings, milvus=replace(users.address, user=user, password=PASSWORD)), str(NAME))

    nobody, looker = of("nobody"), of("looker")
    assert with_status(nobody, FAIL) == ["milvus.collections", "milvus.restore_privileges"]
    assert with_status(looker, FAIL) == ["milvus.restore_privileges"]
    assert looker["milvus.read"]["status"] == looker["milvus_storage.segment"]["status"] == PASS
    assert looker["milvus.backup_privileges"]["status"] == WARN
    assert "user 'looker' lacks the privilege for Flush" in looker["milvus.backup_privileges"]["message"]
    for privilege in ("CreateCollection", "CreatePartition", "CreateIndex", "RenameCollection", "DropCollection"):
        assert privilege in looker["milvus.restore_privileges"]["message"]
    assert "LoadCollection" not in looker["milvus.restore_privileges"]["message"]
