"""Bad input: one clear error that names the value and the remedy, and nothing has changed."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import boto3
import pytest

from airflow_provider_milvus_backup.core.errors import (
    AuthError,
    BackupDamaged,
    BackupExists,
    BackupNotFound,
    ConfigError,
    MilvusBackupError,
    NotInStorage,
    ServerUnreachable,
    StorageDenied,
    TargetExists,
)
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.settings import S3Location
from demo import servers
from tests.integration import data
from tests.integration.clusters import A_BUCKET, READER, STRANGER, VAULT, Cluster, User, admin, everything, location

NAME = CollectionName("default", "bad_input")


@pytest.fixture(scope="module", autouse=True)
def shape(a: Cluster, s3: servers.S3Server) -> Iterator[data.Collection]:
    """A collection, backed up as ``good``, and as ``vaulted`` in another bucket."""
    made = a.create(data.docs(NAME.collection), range(50))
    a.backup("good", NAME.collection)
    a.backup("vaulted", NAME.collection, settings=replace(a.settings, backup_storage=location(s3, VAULT)))
    yield made
    a.drop(NAME)


@contextmanager
def refused(cluster: Cluster, error: type[MilvusBackupError], *parts: str) -> Iterator[None]:
    """Expect an error whose message has all parts, in this order, and that nothing was changed."""
    before = everything(cluster)
    with pytest.raises(error, match="(?s)" + ".*".join(map(re.escape, parts))) as caught:
        yield
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    for secret in (cluster.s3.secret_key, "secret of", "wrong-password", "wrong-secret"):
        assert secret not in str(caught.value)
    assert everything(cluster) == before


def copied(a: Cluster, name: str, change: Callable[[str, bytes], bytes | None] | None = None) -> str:
    """Make a copy of the backup ``good``; ``change`` gets each key below it and its content, None leaves the object out."""
    client = admin(a.s3)
    for item in client.list_objects_v2(Bucket=A_BUCKET, Prefix="backup/good/")["Contents"]:
        key = item["Key"].removeprefix("backup/good/")
        body = client.get_object(Bucket=A_BUCKET, Key=item["Key"])["Body"].read()
        changed = change(key, body) if change else body
        if changed is not None:
            client.put_object(Bucket=A_BUCKET, Key=f"backup/{name}/{key}", Body=changed)
    return name


def stranger(s3: servers.S3Server, bucket: str, key: str, secret: str) -> S3Location:
    return S3Location(bucket, "backup", lambda: boto3.Session(key, secret, region_name="us-east-1"), endpoint_url=s3.endpoint_url)


# ---- names -------------------------------------------------------------------------------------------------------------------------


def test_a_backup_name_must_be_valid(a: Cluster) -> None:
    before = everything(a)
    for name in ("", "1st", "with-dash", "../good", "a/b", "ünï", "x" * 129, "a b", "good\n"):
        for verb in (a.backup, a.restore):
            with pytest.raises(ConfigError, match=re.escape(f"backup name {name!r} is not valid") + ".*letters"):
                verb(name)
    assert everything(a) == before


def test_a_backup_name_must_be_free(a: Cluster) -> None:
    with refused(a, BackupExists, "'good' already exists", "choose another name or delete it"):
        a.backup("good")


def test_a_backup_must_exist(a: Cluster) -> None:
    with refused(a, BackupNotFound, "'god' does not exist", "good"):
        a.restore("god", suffix="_bak")


@pytest.mark.parametrize(
    ("collections", "parts"),
    [
        ("bad_inputs", ["default.bad_inputs does not exist", "did you mean", "default.bad_input"]),
        (["bad_input", "nowhere.x"], ["nowhere.x does not exist"]),
        ("nowhere.*", ["'nowhere.*' matches nothing", "'nowhere' holds no collection"]),
        ("bad input", ["'bad input' is not `coll`, `db.coll` or `db.*`"]),
        ("a.b.c", ["'a.b.c' is not"]),
        ("*", ["'*' is not"]),
        ([""], ["empty name"]),
        (7, ["7"]),
    ],
    ids=str,
)
def test_a_selection_must_pick_something(a: Cluster, collections: Any, parts: list[str]) -> None:
    with refused(a, ConfigError, "collections", *parts):
        a.backup("unmade", collections)
    with refused(a, ConfigError, "collections", *parts):
        a.restore("good", collections=collections, suffix="_bak")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"rename": {"bad_input": "b"}, "suffix": "_bak"}, ["suffix '_bak' and rename", "exclude each other"]),
        ({"rename": {"bad_inputs": "b"}}, ["'bad_inputs' matches no collection", "did you mean default.bad_input"]),
        ({"rename": {"bad_input": "b c"}}, ["'b c' is not `coll`"]),
        ({"rename": {"default.*": "b"}}, ["'default.*' -> 'b' mixes a database with a collection"]),
        ({"rename": {"bad_input": "1x"}}, ["'1x' is not `coll`"]),
        ({"suffix": "-bak"}, ["suffix '-bak' is not valid"]),
        ({"suffix": "_" + "x" * 250}, ["is not a name that Milvus accepts"]),
        ({"suffix": "_bak", "if_exists": "overwrite"}, ["if_exists 'overwrite' is not one of fail, replace, append"]),
        ({"suffix": "_bak", "load": "sometimes"}, ["load 'sometimes' is not one of"]),
        ({"suffix": "_bak", "load": "always", "restore_indexes": False}, ["load 'always' needs restore_indexes"]),
        ({"suffix": "_bak", "max_shards": 0}, ["max_shards 0 is not a number of shards; give 1 or more"]),
        ({"suffix": "_bak", "max_shards": "2"}, ["max_shards '2' is not a number of shards"]),
        ({"suffix": "_bak", "allow_downgrade": "False"}, ["allow_downgrade 'False' is neither True nor False"]),
        ({"suffix": "_bak", "meta_only": None}, ["meta_only None is neither True nor False"]),
    ],
    ids=str,
)
def test_restore_options_must_make_sense(a: Cluster, options: dict[str, Any], parts: list[str]) -> None:
    with refused(a, ConfigError, *parts):
        a.restore("good", **options)


def test_renamed_collections_must_not_collide(a: Cluster) -> None:
    other = a.create(data.docs("bad_input_2"))
    a.backup("pair", ["bad_input", "bad_input_2"], "meta_only")
    with refused(a, ConfigError, "default.bad_input and default.bad_input_2 would both be restored as default.bad_input_2"):
        a.restore("pair", rename={"bad_input": "bad_input_2"}, if_exists="replace")
    a.drop(other.name)


def test_a_strategy_must_be_known(a: Cluster) -> None:
    with refused(a, ConfigError, "strategy 'quick' is not one of flush, flush_all, skip_flush, meta_only"):
        a.backup("unmade", strategy="quick")


def test_a_target_must_not_exist(a: Cluster) -> None:
    with refused(a, TargetExists, "default.bad_input already exists", "suffix, rename", "if_exists='replace' or 'append'"):
        a.restore("good")


def test_a_target_must_not_be_an_alias(a: Cluster) -> None:
    a.server.create_alias(NAME, "bad_input_live")
    for if_exists in ("fail", "replace", "append"):
        with refused(a, TargetExists, "bad_input_live", "alias"):
            a.restore("good", suffix="_live", if_exists=if_exists)
    a.client().drop_alias("bad_input_live")


# ---- places --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bucket", "root_path"), [(VAULT, "files"), (A_BUCKET, "elsewhere"), (A_BUCKET, "")])
def test_milvuss_bucket_and_root_path_must_be_right(a: Cluster, s3: servers.S3Server, bucket: str, root_path: str) -> None:
    wrong = replace(a.settings, milvus_storage=location(s3, bucket, root_path))
    wrong = replace(wrong, backup_storage=location(s3, VAULT))
    names = [f"bucket_name {bucket!r}", f"root_path {root_path!r}", "connection 'milvus_test'"]
    with refused(a, ConfigError, "Milvus reports 1 segments of default.bad_input", *names):
        a.backup("unmade", NAME.collection, settings=wrong)


def test_backups_must_not_lie_inside_milvuss_root_path(a: Cluster, s3: servers.S3Server) -> None:
    for root_path in ("files", "files/backup"):
        with refused(a, ConfigError, f"backup_root_path {root_path!r}", "choose another"):
            a.backup("unmade", settings=replace(a.settings, backup_storage=location(s3, A_BUCKET, root_path)))


def test_s3_keys_must_be_right(a: Cluster, s3: servers.S3Server) -> None:
    for place in (stranger(s3, VAULT, "AKNOBODY", "wrong-secret"), stranger(s3, VAULT, s3.access_key, "wrong-secret")):
        wrong = replace(a.settings, backup_storage=place)
        with refused(a, StorageDenied, f"s3://{VAULT}/backup", "is wrong", "correct the aws connection"):
            a.backup("unmade", NAME.collection, settings=wrong)
        with refused(a, StorageDenied, f"s3://{VAULT}/backup", "is wrong", "correct the aws connection"):
            a.restore("good", settings=wrong)
        wrong = replace(a.settings, milvus_storage=replace(place, bucket=A_BUCKET, root_path="files"))
        with refused(a, StorageDenied, f"s3://{A_BUCKET}/files", "is wrong", "correct the aws connection"):
            a.backup("unmade", NAME.collection, settings=wrong)


@pytest.mark.parametrize("user", [STRANGER, READER], ids=lambda user: user.name)
def test_permissions_must_suffice(a: Cluster, s3: servers.S3Server, user: User) -> None:
    place = location(s3, VAULT, "backup", user)
    with refused(a, StorageDenied, f"s3://{VAULT}/backup", "access denied", "permission"):
        a.backup("unmade", NAME.collection, settings=replace(a.settings, backup_storage=place))
    unwritable = replace(a.settings, milvus_storage=location(s3, A_BUCKET, "files", user), backup_storage=location(s3, VAULT))
    with refused(a, StorageDenied, f"s3://{A_BUCKET}/files", "access denied", "permission"):
        a.restore("vaulted", settings=unwritable, suffix="_bak")


def test_the_bucket_must_exist(a: Cluster, s3: servers.S3Server) -> None:
    missing = replace(a.settings, backup_storage=location(s3, "no-such-bucket"))
    with refused(a, NotInStorage, "s3://no-such-bucket/backup", "the bucket does not exist", "correct the bucket name"):
        a.backup("unmade", NAME.collection, settings=missing)
    with refused(a, NotInStorage, "s3://no-such-bucket/backup", "the bucket does not exist", "correct the bucket name"):
        a.restore("good", settings=missing)
    with refused(a, NotInStorage, "s3://no-such-bucket/files", "the bucket does not exist", "correct the bucket name"):
        a.backup("unmade", NAME.collection, settings=replace(a.settings, milvus_storage=location(s3, "no-such-bucket", "files")))


def test_milvus_must_answer_within_ten_seconds(a: Cluster) -> None:
    before = everything(a)
    with socket.create_server((servers.LOOPBACK, 0)) as silent, socket.socket() as closed:
        closed.bind((servers.LOOPBACK, 0))
        for server, verb in ((silent, a.backup), (closed, a.restore)):
            port, started = server.getsockname()[1], time.monotonic()
            message = rf"127.0.0.1:{port} \(connection 'milvus_test'\).*did not answer within 8 s.*host, port"
            with pytest.raises(ServerUnreachable, match=message):
                verb("good" if verb == a.restore else "unmade", settings=replace(a.settings, milvus=replace(a.address, port=port)))
            assert time.monotonic() - started < 100
    assert everything(a) == before


def test_the_password_must_be_right(b: Cluster) -> None:
    for user, password in (("root", "wrong-password"), ("nobody", "Milvus"), ("", "")):
        wrong = replace(b.settings, milvus=replace(b.address, user=user, password=password))
        with refused(b, AuthError, "connection 'milvus_test'", "check login, password or token"):
            b.backup("unmade", settings=wrong)


# ---- damaged backups -----------------------------------------------------------------------------------------------------------------


def meta(edit: Callable[[dict[str, Any]], object]) -> Callable[[str, bytes], bytes]:
    """Return a change of full_meta.json alone; ``edit`` gets the collection's part."""

    def change(key: str, body: bytes) -> bytes:
        if key != "meta/full_meta.json":
            return body
        document = json.loads(body)
        edit(document["collection_backups"][0])
        return json.dumps(document).encode()

    return change


def first_segment(collection: dict[str, Any]) -> dict[str, Any]:
    return next(p["segment_backups"][0] for p in collection["partition_backups"] if p.get("segment_backups"))


@pytest.mark.parametrize(
    ("name", "change", "error", "parts"),
    [
        ("truncated", lambda k, b: b[:200] if k.endswith("full_meta.json") else b, BackupDamaged, ["full_meta.json is not readable JSON"]),
        ("not_json", lambda k, b: b"\x00" if k.endswith("full_meta.json") else b, BackupDamaged, ["full_meta.json is not readable JSON"]),
        ("path_in_id", meta(lambda c: c.update(collection_id="../../x")), BackupDamaged, ["collection_id", "'../../x'", "not an integer"]),
        ("huge_id", meta(lambda c: first_segment(c).update(segment_id=10**30)), BackupDamaged, ["segment_id"]),
        ("path_in_name", meta(lambda c: c.update(collection_name="../x")), MilvusBackupError, ["../x"]),
        ("path_in_partition", meta(lambda c: c["partition_backups"][0].update(partition_name="../x")), MilvusBackupError, ["../x"]),
        ("wrong_type", meta(lambda c: c.update(partition_backups={})), BackupDamaged, ["partition_backups is {}, not a list"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_meta_must_be_sound(
    a: Cluster, name: str, change: Callable[[str, bytes], bytes | None], error: type[MilvusBackupError], parts: list[str]
) -> None:
    copied(a, name, change)
    before = everything(a)
    with pytest.raises(error, match=".*".join(map(re.escape, parts))) as caught:
        a.restore(name, suffix="_bak")
    assert isinstance(caught.value, BackupDamaged | ConfigError)
    assert everything(a) == before


def test_a_backup_without_its_commit_mark_does_not_exist(a: Cluster) -> None:
    copied(a, "unfinished", lambda key, body: None if key == "meta/backup_meta.json" else body)
    with refused(a, BackupNotFound, "'unfinished' does not exist"):
        a.restore("unfinished", suffix="_bak")


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [("lost_object", lambda body: None, "missing"), ("short_object", lambda body: body[:-1], "bytes instead of")],
    ids=["missing", "of another size"],
)
@pytest.mark.parametrize("staged", [False, True], ids=["in place", "staged"])
def test_every_data_object_must_be_there(
    a: Cluster, s3: servers.S3Server, name: str, change: Callable[[bytes], bytes | None], problem: str, staged: bool
) -> None:
    damaged: list[str] = []

    def one(key: str, body: bytes) -> bytes | None:
        if "insert_log" not in key or damaged not in ([], [key]):
            return body
        damaged[:] = [key]
        return change(body)

    copied(a, name, one)
    # For a store behind another name Milvus's bucket is another place, and everything would have to be staged.
    settings = replace(a.settings, backup_storage=replace(a.backups, endpoint_url=s3.endpoint_url.replace("127.0.0.1", "localhost")))
    with refused(a, BackupDamaged, "default.bad_input cannot be restored: 1 object", damaged[0].rpartition("/")[2], problem):
        a.restore(name, settings=settings if staged else a.settings, suffix="_bak")
