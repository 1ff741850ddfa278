"""Planted secrets are in no log line, XCom, rendered field, trigger, object in a bucket, or exception; all of them contain ``planted``."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_provider_milvus_backup.core import errors
from airflow_provider_milvus_backup.operators.backup import MilvusBackupOperator
from airflow_provider_milvus_backup.operators.restore import MilvusRestoreOperator
from demo.servers import MilvusServer
from tests.airflow import dag_runs
from tests.airflow.dag_runs import context, deferred_by, fired
from tests.airflow.gates import stalled_imports
from tests.airflow.stack import DIMENSION, KEYS, Stack, broken_backup, in_environment, milvus_connection

PASSWORD = "planted-password-of-keeper"


@pytest.fixture(scope="module")
def keeper(stack: Stack, milvus_b: MilvusServer) -> dict[str, dict[str, Any]]:
    """Make a user with a password of its own, and a collection; returns its connections."""
    client = stack.client(server=milvus_b)
    client.create_user("keeper", PASSWORD)
    client.grant_role("keeper", "admin")
    client.create_collection("small", dimension=DIMENSION)
    client.insert("small", [{"id": i, "vector": [i / 64] * DIMENSION} for i in range(50)])
    return {
        "milvus_default": {**milvus_connection(milvus_b, "b-bucket", "aws_default"), "login": "keeper", "password": PASSWORD},
        "aws_default": stack.aws_connection("b"),
    }


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """Fail the test when anything that is logged or printed holds a secret; yields what to look for what was."""
    caplog.set_level(logging.INFO)
    said: list[str] = []

    def text() -> str:
        said.extend(capfd.readouterr())
        return "\n".join([*said, caplog.text])

    yield text
    assert "planted" not in text()


def chain(error: BaseException) -> str:
    """Return all that an exception says: itself, what caused it, and what was being handled when it was raised."""
    said, seen = [], set()
    todo: list[BaseException | None] = [error]
    while todo:
        if (one := todo.pop()) is not None and id(one) not in seen:
            seen.add(id(one))
            said.append(f"{one} {one!r} {vars(one)}")
            todo += [one.__cause__, one.__context__]
    return "\n".join(said)


def written(stack: Stack, bucket: str) -> bytes:
    """Return all files of a bucket but Milvus's own and the copied logs."""
    client = stack.s3.client()
    keys = [key for key in stack.keys(bucket) if "/binlogs/" not in key and not key.startswith("files/")]
    return b"\n".join(key.encode() + client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys)


@pytest.mark.parametrize("where", ["connections", "config"])
def test_a_backup_and_a_restore_keep_secrets_to_themselves(
    stack: Stack,
    milvus_b: MilvusServer,
    keeper: dict[str, Any],
    airflow_db: Path,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
) -> None:
    variables = {
        "milvus_port": milvus_b.port,
        "milvus_pw": PASSWORD,
        "s3_port": urlsplit(stack.s3.endpoint_url).port,
        "s3_key": KEYS["b"]["access_key"],
        "s3_sec": KEYS["b"]["secret_key"],
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"AIRFLOW_VAR_{name.upper()}", str(value))
    with in_environment(keeper if where == "connections" else {}):
        run = dag_runs.run(dag_runs.load(dag_runs.DAGS / "secret.py", f"secret_{where}"))
        assert run.states() == {"backup": "success", "restore": "success"}, logged()
    assert run.result("restore")["rows"] == 50
    assert f"committed s3://b-bucket/backup/secret_{where}" in logged()
    database = b"".join(path.read_bytes() for path in airflow_db.parent.glob("airflow.db*"))
    assert f"secret_{where}".encode() in database
    assert b"secretAccessKey" in database or where == "connections", "rendered fields are not where they are looked for"
    assert b"planted" not in database
    files = written(stack, "b-bucket")
    assert f"backup/secret_{where}/provider/restores/".encode() in files
    assert b"planted" not in files


def wrong(connections: dict[str, Any], conn_id: str, **fields: Any) -> dict[str, Any]:
    return {**connections, conn_id: {**connections[conn_id], **fields}}


def token(stack: Stack) -> dict[str, Any]:
    fields = stack.aws_connection("b")
    return {**fields, "extra": {**fields["extra"], "aws_session_token": "planted-session-token"}}


FAILURES: dict[str, tuple[Callable[[Stack, dict[str, Any]], dict[str, Any]], dict[str, Any], type[Exception]]] = {
    "wrong password": (lambda _, own: wrong(own, "milvus_default", password="planted-wrong-password"), {}, errors.AuthError),
    "wrong token": (lambda _, own: wrong(own, "milvus_default", login="", password="planted:token"), {}, errors.AuthError),
    "wrong key": (lambda _, own: wrong(own, "aws_default", password="planted-wrong-key"), {}, errors.StorageDenied),
    "unknown key": (lambda _, own: wrong(own, "aws_default", login="AKNOBODY"), {}, errors.StorageDenied),
    "wrong session token": (lambda stack, own: {**own, "aws_default": token(stack)}, {}, errors.StorageDenied),
    "denied bucket": (lambda _, own: own, {"backup_bucket": "backups"}, errors.StorageDenied),
    "no bucket": (lambda _, own: own, {"backup_bucket": "no-bucket"}, errors.StorageError),
    "no endpoint": (lambda _, own: wrong(own, "aws_default", extra={"endpoint_url": "http://127.0.0.1:1"}), {}, errors.StorageError),
    "config with a wrong value": (
        lambda _, own: own,
        {"config": {"milvus": {"port": "none", "password": "planted"}, "minio": {"useSSL": "perhaps", "secretAccessKey": "planted"}}},
        errors.ConfigError,
    ),
    "config as text": (lambda _, own: own, {"config": "minio:\n  secretAccessKey: planted-in-text\n"}, errors.ConfigError),
    "config as JSON": (lambda _, own: own, {"config": '{"minio": {"secretAccessKey": "planted-in-text"}}'}, errors.ConfigError),
}


@pytest.mark.parametrize("what", FAILURES)
@pytest.mark.parametrize("kind", ["backup", "restore"])
def test_a_failure_keeps_secrets_to_itself(stack: Stack, keeper: dict[str, Any], what: str, kind: str) -> None:
    connections, options, expected = FAILURES[what]
    task: Any = MilvusBackupOperator(task_id="t", backup_name="failing", collections=["small"], **options)
    if kind == "restore":
        task = MilvusRestoreOperator(task_id="t", backup_name="secret_connections", suffix="_failing", deferrable=True, **options)
    with in_environment(connections(stack, keeper)), pytest.raises(Exception) as raised:  # noqa: PT011 (which one is said below)
        task.execute(context(task))
    root: Any = raised.value if isinstance(raised.value, errors.MilvusBackupError) else raised.value.__cause__
    assert isinstance(root, expected), chain(raised.value)
    assert "planted" not in chain(raised.value)


def test_a_timeout_and_a_broken_backup_keep_secrets_to_themselves(connected: Stack, backed_up: Any) -> None:
    broken_backup(connected, "broken_secret")
    options: dict[str, Any] = {"backup_name": "shared", "backup_bucket": "backups", "suffix": "_secret_late", "load": "never"}
    late = MilvusRestoreOperator(task_id="late", timeout=1, **options)
    with stalled_imports(connected), pytest.raises(errors.WaitTimeout) as raised:
        late.execute(context(late))
    assert "planted" not in chain(raised.value)
    retry = MilvusRestoreOperator(task_id="late", poll_interval=0.5, **options)
    retry.execute(context(retry, try_number=2))

    def restore() -> MilvusRestoreOperator:
        options = {"backup_bucket": "backups", "suffix": "_secret_broken", "deferrable": True}
        return MilvusRestoreOperator(task_id="broken", backup_name="broken_secret", **options)

    task = restore()
    trigger = deferred_by(lambda: task.execute(context(task))).trigger
    event = fired(trigger)
    assert "planted" not in json.dumps([trigger.serialize(), event]) + repr(trigger)
    task = restore()
    with pytest.raises(Exception, match="ImportFailed") as failed:
        task.execute_complete(context(task), event)
    assert "planted" not in chain(failed.value)
    assert b"planted" not in written(connected, "backups") + written(connected, "a-bucket")
