"""A backup.yaml of milvus-backup, v1 or v2, says exactly what it says; anything unusable is refused by name and without secrets."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.backup_yaml import BackupYaml, YamlStorage, read
from airflow_provider_milvus_backup.core.errors import ConfigError

# A busy machine is no reason to fail.
BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

V1 = """
log:
  level: info
  console: true
  file:
    filename: logs/backup.log
cloud:
  apikey: my-cloud-key
milvus:
  address: milvus-proxy
  port: 19531
  user: root
  password: "s3cret"
  tlsMode: 2
  caCertPath: /certs/ca.pem
  serverName: milvus.example.com
  mtlsCertPath: /certs/client.pem
  mtlsKeyPath: /certs/client.key
  etcd:
    endpoints: 127.0.0.1:2379
minio:
  storageType: minio
  address: minio
  port: 9000
  region: eu-central-1
  accessKeyID: ak
  secretAccessKey: sk
  token: tok
  useSSL: false
  useIAM: false
  bucketName: milvus-bucket
  rootPath: milvus-root
  backupAddress: backup-store
  backupPort: 443
  backupUseSSL: true
  backupBucketName: backups
  backupRootPath: nightly
  crossStorage: true
  multipartCopyThresholdMiB: 100
backup:
  parallelism:
    copydata: 64
    backupCollection: 8
    backupSegment: 512
    restoreCollection: 3
    importJob: 32
  keepTempFiles: false
  gcPause:
    enable: false
    address: http://datacoord:9091
"""

V2 = """
configVersion: v2
log: {level: debug}
server: {debugMode: true}
milvus:
  user: root
  password: s3cret
  grpc:
    address: milvus-proxy
    port: 19531
    tlsMode: mutual
    caCertPath: /certs/ca.pem
    serverName: milvus.example.com
    mtlsCertPath: /certs/client.pem
    mtlsKeyPath: /certs/client.key
  rest: {endpoint: "https://milvus-rest.example.com"}
  management: {endpoint: "http://datacoord:9091"}
  etcd: {endpoints: ["etcd-0:2379", "etcd-1:2379"]}
  storage:
    provider: minio
    address: minio
    port: 9000
    region: eu-central-1
    bucketName: milvus-bucket
    rootPath: milvus-root
    auth: {type: static, accessKeyID: ak, secretAccessKey: sk, sessionToken: tok}
backup:
  storage: {address: backup-store, port: 443, useSSL: true, bucketName: backups, rootPath: nightly}
  concurrency: {collections: 8, segments: 512}
  pauseGC: false
restore:
  concurrency: {collections: 3, importJobs: 32}
transfer: {mode: streaming, concurrency: 64, multipartCopyThresholdMiB: 100}
zillizCloud: {apiKey: my-cloud-key}
"""

MILVUS_SIDE = YamlStorage(
    provider="minio",
    endpoint_url="http://minio:9000",
    region="eu-central-1",
    access_key="ak",
    secret_key="sk",
    session_token="tok",
    use_iam=False,
    bucket="milvus-bucket",
    root_path="milvus-root",
)


def full(**rest: Any) -> BackupYaml:
    return BackupYaml(
        milvus_host="milvus-proxy",
        milvus_port=19531,
        milvus_user="root",
        milvus_password="s3cret",
        milvus_secure=True,
        milvus_ca_cert="/certs/ca.pem",
        milvus_client_cert="/certs/client.pem",
        milvus_client_key="/certs/client.key",
        milvus_server_name="milvus.example.com",
        storage=MILVUS_SIDE,
        backup_storage=YamlStorage(
            provider="minio",
            endpoint_url="https://backup-store",
            region="eu-central-1",
            access_key="ak",
            secret_key="sk",
            session_token="tok",
            use_iam=False,
            bucket="backups",
            root_path="nightly",
        ),
        concurrency=64,
        multipart_threshold_mib=100,
        streaming=True,
        **rest,
    )


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "backup.yaml"
    path.write_text(text)
    return path


def v1(**minio: Any) -> BackupYaml:
    return read({"minio": minio})


def v2(storage: dict[str, Any] | None = None, backup: dict[str, Any] | None = None) -> BackupYaml:
    return read({"configVersion": "v2", "milvus": {"storage": storage or {}}, "backup": {"storage": backup or {}}})


def test_every_key_of_v1_is_read_and_what_has_no_meaning_is_listed(tmp_path: Path) -> None:
    ignored = (
        "backup.gcPause.address",
        "backup.gcPause.enable",
        "backup.keepTempFiles",
        "backup.parallelism.backupCollection",
        "backup.parallelism.backupSegment",
        "backup.parallelism.importJob",
        "backup.parallelism.restoreCollection",
        "cloud.apikey",
        "log.console",
        "log.file.filename",
        "log.level",
        "milvus.etcd.endpoints",
    )
    assert read(written(tmp_path, V1)) == full(ignored=ignored)


def test_every_key_of_v2_is_read_and_what_has_no_meaning_is_listed(tmp_path: Path) -> None:
    ignored = (
        "backup.concurrency.collections",
        "backup.concurrency.segments",
        "backup.pauseGC",
        "log.level",
        "milvus.etcd.endpoints",
        "milvus.management.endpoint",
        "milvus.rest.endpoint",
        "restore.concurrency.collections",
        "restore.concurrency.importJobs",
        "server.debugMode",
        "zillizCloud.apiKey",
    )
    assert read(str(written(tmp_path, V2))) == full(ignored=ignored)


@pytest.mark.parametrize("text", [V1, V2])
def test_parsed_content_means_the_same_as_the_file(tmp_path: Path, text: str) -> None:
    assert read(yaml.safe_load(text)) == read(written(tmp_path, text))


@pytest.mark.parametrize("text", [V1, V2])
def test_secrets_are_not_in_the_repr(text: str) -> None:
    shown = repr(read(yaml.safe_load(text)))
    assert not [secret for secret in ("s3cret", "'sk'", "'tok'", "my-cloud-key") if secret in shown]


@pytest.mark.parametrize("config", [{}, {"configVersion": "v1"}, {"configVersion": "V2"}])
def test_defaults_of_the_tool_are_never_filled_in(config: dict[str, Any]) -> None:
    assert read(config) == BackupYaml()


def test_environment_variables_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MILVUS_ADDRESS", "MILVUS_USER", "MINIO_ADDRESS", "MILVUS_STORAGE_AUTH_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "from-env")
    assert read({}) == read({"configVersion": "v2"}) == BackupYaml()


def test_capitals_in_keys_do_not_matter() -> None:
    found = read({"MILVUS": {"Address": "m", "tlsmode": 1}, "Minio": {"BUCKETNAME": "b"}})
    assert (found.milvus_host, found.milvus_secure, found.storage.bucket) == ("m", True, "b")


def test_a_key_written_twice_in_different_capitals_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"milvus\.Address is there twice"):
        read({"milvus": {"address": "a", "Address": "b"}})


def test_numbers_and_booleans_may_be_written_as_text() -> None:
    found = read(
        {"milvus": {"port": "19530"}, "minio": {"useIAM": "Yes", "crossStorage": "true"}, "backup": {"gcPause": {"enable": "off"}}}
    )
    assert (found.milvus_port, found.storage.use_iam, found.streaming) == (19530, True, True)


@pytest.mark.parametrize("password", ["0123", "1e5", "yes", "2026-11-22", "12:30:00", "0x1F"])
def test_an_unquoted_password_in_a_file_stays_as_it_was_written(tmp_path: Path, password: str) -> None:
    assert read(written(tmp_path, f"milvus:\n  password: {password}\n")).milvus_password == password


def test_a_key_without_a_value_counts_as_absent(tmp_path: Path) -> None:
    found = read(written(tmp_path, "minio:\n  bucketName: a\n  backupBucketName:\n  backupRootPath: ~\n  rootPath: r\nmilvus:\n"))
    assert (found.backup_storage.bucket, found.backup_storage.root_path, found.ignored) == ("a", "r", ())


def test_yaml_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    text = "x: &s {bucketName: b}\nconfigVersion: v2\nmilvus:\n  storage:\n    <<: *s\n    rootPath: r\n"
    assert read(written(tmp_path, text)).storage == YamlStorage(bucket="b", root_path="r")


# ---- inheritance ---------------------------------------------------------------------------------------------------------------


def test_v1_backup_storage_inherits_every_key_it_does_not_set() -> None:
    config = yaml.safe_load(V1)
    config["minio"] = {key: value for key, value in config["minio"].items() if not key.startswith("backup")}
    found = read(config)
    assert found.backup_storage == found.storage == MILVUS_SIDE


def test_v1_backup_root_path_is_the_one_of_milvus_when_unset() -> None:
    assert v1(rootPath="files").backup_storage.root_path == "files"
    assert v1(rootPath="files", backupRootPath="backup").backup_storage.root_path == "backup"


def test_v2_backup_storage_inherits_all_but_the_root_path() -> None:
    storage = {"provider": "aws", "bucketName": "b", "rootPath": "files", "auth": {"type": "iam"}, "region": "eu-west-1"}
    found = v2(storage)
    assert found.storage.root_path == "files"
    assert found.backup_storage == YamlStorage(provider="aws", bucket="b", use_iam=True, region="eu-west-1")


def test_milvus_storage_never_inherits_from_the_backup_storage() -> None:
    assert v1(backupAddress="b", backupBucketName="c", backupUseIAM=True).storage == YamlStorage()
    assert v2(backup={"address": "b", "bucketName": "c"}).storage == YamlStorage()


def test_part_of_an_endpoint_can_be_inherited() -> None:
    assert v1(address="minio", port=9000, backupPort=9001).backup_storage.endpoint_url == "http://minio:9001"
    assert v1(address="minio", useSSL=True, backupUseSSL=False).backup_storage.endpoint_url == "http://minio:9000"


def test_an_empty_text_ends_inheritance() -> None:
    found = v1(token="tok", region="eu-west-1", rootPath="files", backupToken="", backupRegion="", backupRootPath="").backup_storage
    assert (found.session_token, found.region, found.root_path) == (None, None, "")


def test_an_empty_root_path_is_the_root_of_the_bucket_and_not_unset() -> None:
    assert v1(rootPath="").storage.root_path == ""
    assert v1().storage.root_path is None


# ---- endpoints -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "port", "ssl", "url"),
    [
        ("minio", 9000, None, "http://minio:9000"),
        ("minio", None, None, "http://minio:9000"),
        ("minio", 9000, True, "https://minio:9000"),
        ("storage.googleapis.com", 443, True, "https://storage.googleapis.com"),
        ("oss-cn-hangzhou.aliyuncs.com", 80, False, "http://oss-cn-hangzhou.aliyuncs.com"),
        ("10.0.0.1", "443", "false", "http://10.0.0.1:443"),
        ("fd00::1", 9000, False, "http://[fd00::1]:9000"),
        ("s3.dualstack.eu-west-1.amazonaws.com", 443, True, "https://s3.dualstack.eu-west-1.amazonaws.com"),
        ("s3-fips.us-east-1.amazonaws.com", 443, True, "https://s3-fips.us-east-1.amazonaws.com"),
        ("vpce-1.s3.eu-west-1.vpce.amazonaws.com", 443, True, "https://vpce-1.s3.eu-west-1.vpce.amazonaws.com"),
        ("s3.amazonaws.com.evil.example", 443, True, "https://s3.amazonaws.com.evil.example"),
    ],
)
def test_the_endpoint_is_made_of_address_port_and_tls(address: str, port: Any, ssl: Any, url: str) -> None:
    assert v1(address=address, port=port, useSSL=ssl).storage.endpoint_url == url
    assert v2({"address": address, "port": port, "useSSL": ssl}).storage.endpoint_url == url


@pytest.mark.parametrize(
    ("address", "region"),
    [
        ("s3.amazonaws.com", None),
        ("s3.us-west-2.amazonaws.com", "us-west-2"),
        ("S3.EU-West-1.amazonaws.com", "eu-west-1"),
        ("s3-ap-southeast-1.amazonaws.com", "ap-southeast-1"),
        ("s3.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
    ],
)
def test_plain_aws_has_no_endpoint_and_its_address_names_the_region(address: str, region: str | None) -> None:
    assert v1(address=address, port=443, useSSL=True).storage == YamlStorage(region=region)
    assert v1(address=address, region="eu-north-1").storage == YamlStorage(region="eu-north-1")


def test_a_backup_on_aws_does_not_inherit_the_endpoint_of_minio() -> None:
    found = v1(address="minio", port=9000, backupAddress="s3.us-east-1.amazonaws.com").backup_storage
    assert (found.endpoint_url, found.region) == (None, "us-east-1")


@pytest.mark.parametrize("address", ["http://minio", "minio:9000", "minio/bucket", "a b", "user@host"])
def test_an_address_that_is_more_than_a_host_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"minio\.address is .*host name or IP address alone"):
        v1(address=address)
    with pytest.raises(ConfigError, match=r"milvus\.address"):
        read({"milvus": {"address": address}})


# ---- providers and credentials -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written_as", "provider"),
    [(name, name) for name in ("minio", "s3", "aws", "gcp", "aliyun", "tencent", "hwc")]
    + [("ali", "aliyun"), ("alibaba", "aliyun"), ("AliCloud", "aliyun"), ("tc", "tencent"), ("MinIO", "minio")],
)
def test_every_store_that_speaks_s3_is_accepted_under_all_its_names(written_as: str, provider: str) -> None:
    assert v1(storageType=written_as).storage.provider == provider
    assert v1(cloudProvider=written_as).backup_storage.provider == provider
    assert v1(backupStorageType=written_as).backup_storage.provider == provider
    assert read({"storage": {"storageType": written_as}}).storage.provider == provider
    assert v2({"provider": written_as}).storage.provider == provider


@pytest.mark.parametrize("provider", ["azure", "gcpnative", "local", "nonsense"])
def test_a_store_that_does_not_speak_s3_is_refused_by_key_and_value(provider: str) -> None:
    with pytest.raises(ConfigError, match=rf"config: minio\.backupStorageType is '{provider}'"):
        v1(backupStorageType=provider)
    with pytest.raises(ConfigError, match=rf"config: milvus\.storage\.provider is '{provider}'"):
        v2({"provider": provider})


def test_keys_do_not_count_where_the_machine_role_does() -> None:
    found = v1(useIAM=True, accessKeyID="minioadmin", secretAccessKey="minioadmin").storage
    assert found == YamlStorage(use_iam=True)


@pytest.mark.parametrize(("kind", "use_iam"), [("static", False), ("iam", True), ("default", True)])
def test_v2_names_the_kind_of_credentials(kind: str, use_iam: bool) -> None:
    assert v2({"auth": {"type": kind}}).storage.use_iam is use_iam
    with pytest.raises(ConfigError, match=r"backup\.storage\.auth\.type is 'sharedKey'"):
        v2(backup={"auth": {"type": "sharedKey"}})


def test_a_backup_with_keys_of_its_own_may_sit_beside_a_milvus_with_a_role() -> None:
    found = v2({"auth": {"type": "iam"}}, {"auth": {"type": "static", "accessKeyID": "a", "secretAccessKey": "b"}})
    assert found.storage == YamlStorage(use_iam=True)
    assert found.backup_storage == YamlStorage(use_iam=False, access_key="a", secret_key="b")


# ---- TLS, transfer -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "pair", "expected"),
    [
        (0, True, (False, None, None)),
        (1, True, (True, None, None)),
        (2, True, (True, "c", "k")),
        (2, False, (True, None, None)),
        (None, True, (None, "c", "k")),
    ],
)
def test_v1_presents_a_client_certificate_in_mutual_mode_only(mode: int | None, pair: bool, expected: Any) -> None:
    found = read({"milvus": {"tlsMode": mode, **({"mtlsCertPath": "c", "mtlsKeyPath": "k"} if pair else {"mtlsCertPath": ""})}})
    assert (found.milvus_secure, found.milvus_client_cert, found.milvus_client_key) == expected


@pytest.mark.parametrize(("mode", "secure"), [("disabled", False), ("server", True), ("Mutual", True)])
def test_v2_names_the_tls_mode(mode: str, secure: bool) -> None:
    grpc = {"tlsMode": mode, "mtlsCertPath": "c", "mtlsKeyPath": "k"}
    assert read({"configVersion": "v2", "milvus": {"grpc": grpc}}).milvus_secure is secure


def test_v2_mutual_tls_without_a_key_pair_is_refused() -> None:
    with pytest.raises(ConfigError, match="tlsMode mutual needs mtlsCertPath and mtlsKeyPath"):
        read({"configVersion": "v2", "milvus": {"grpc": {"tlsMode": "mutual", "mtlsCertPath": "c"}}})


@pytest.mark.parametrize(("cross", "streaming"), [(True, True), (False, None), (None, None)])
def test_v1_cross_storage_streams_and_otherwise_the_endpoints_decide(cross: bool | None, streaming: bool | None) -> None:
    assert v1(crossStorage=cross).streaming is streaming


@pytest.mark.parametrize(("mode", "streaming"), [("auto", None), ("direct", False), ("streaming", True)])
def test_v2_names_the_transfer_mode(mode: str, streaming: bool | None) -> None:
    assert read({"configVersion": "v2", "transfer": {"mode": mode}}).streaming is streaming


# ---- refusals ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"milvus": {"port": "abc"}}, "config: milvus.port is 'abc', not a port"),
        ({"milvus": {"port": 0}}, "config: milvus.port is '0', not a port"),
        ({"milvus": {"port": 65536}}, "config: milvus.port is '65536', not a port"),
        ({"milvus": {"port": 1.5}}, "config: milvus.port is '1.5', not a port"),
        ({"milvus": {"port": True}}, "config: milvus.port is 'True', not a port"),
        ({"milvus": {"port": [1]}}, "config: milvus.port must be a single value, not a list"),
        ({"milvus": {"tlsMode": 3}}, "config: milvus.tlsMode is '3', not 0 (no TLS)"),
        ({"milvus": {"tlsMode": "server"}}, "config: milvus.tlsMode is 'server', not 0 (no TLS)"),
        ({"configVersion": "v2", "milvus": {"grpc": {"tlsMode": 1}}}, "milvus.grpc.tlsMode is '1', not disabled, server or mutual"),
        ({"minio": {"useSSL": "maybe"}}, "config: minio.useSSL"),
        ({"minio": {"address": "m", "useSSL": "maybe"}}, "config: minio.useSSL is 'maybe', not true or false"),
        ({"minio": {"useIAM": 2}}, "config: minio.useIAM is '2', not true or false"),
        ({"backup": {"parallelism": {"copyData": -1}}}, "config: backup.parallelism.copyData is '-1', not a number"),
        ({"configVersion": "v2", "transfer": {"mode": "fast"}}, "config: transfer.mode is 'fast', not auto, direct or streaming"),
        ({"configVersion": "v3"}, "config: configVersion is 'v3', not v1 or v2"),
        ({"configVersion": 2}, "config: configVersion is '2', not v1 or v2"),
        ({"milvus": "localhost"}, "config: milvus must be a section"),
        ({"milvus": {"address": {"host": "x"}}}, "config: milvus.address must be a value, not a section"),
        ({"transfer": {"mode": "auto"}}, "config: transfer.mode is a key of schema v2; write `configVersion: v2` into the file"),
    ],
)
def test_a_bad_value_is_refused_with_its_key_and_what_it_should_be(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(config)
    assert message in str(caught.value)


def test_an_unknown_key_is_listed_and_not_refused() -> None:
    assert read({"milvus": {"adress": "typo"}, "extra": [1, 2]}).ignored == ("extra", "milvus.adress")
    assert read({"configVersion": "v2", "minio": {"address": "v1 key"}}).ignored == ("minio.address",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds nothing"),
        ("# only a comment\n", "holds nothing"),
        ("- a\n- b\n", "holds no keys"),
        ("just text", "holds no keys"),
        ("milvus:\n  password: 'topsecret\n", "is not valid YAML at line"),
        ("milvus:\n  password: *topsecret\n", "is not valid YAML at line 2"),
        ("milvus:\n  password: !topsecret x\n", "is not valid YAML at line 2"),
        ("milvus: {topsecret: [}\n", "is not valid YAML at line 1"),
        ("\x00topsecret", "is not valid YAML"),
        ("milvus: &loop\n  again: *loop\n", "nested too deeply"),
        ("[" * 400, "is not valid YAML"),
    ],
)
def test_an_unreadable_file_is_refused_by_name_and_its_content_stays_out_of_the_message(tmp_path: Path, content: str, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert "topsecret" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_file_that_cannot_be_opened_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read .*No such file"):
        read(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        read(tmp_path)


@pytest.mark.parametrize("config", [None, 3, ["backup.yaml"], b"backup.yaml"])
def test_what_is_neither_path_nor_content_is_refused(config: Any) -> None:
    with pytest.raises(ConfigError, match="not the path or the content"):
        read(config)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "backup.yaml"
    path.write_bytes(b"milvus:\n  password: \xff\xfe\xfa\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read(path)


SECRETS = ("milvus.password", "minio.secretAccessKey", "minio.token", "minio.backupSecretAccessKey", "minio.backupToken")


@pytest.mark.parametrize("key", SECRETS)
@pytest.mark.parametrize("value", [["topsecret"], {"topsecret": {"deep": 1}}])
def test_a_secret_of_the_wrong_type_is_refused_without_showing_it(key: str, value: Any) -> None:
    section, name = key.split(".")
    with pytest.raises(ConfigError) as caught:
        read({section: {name: value}})
    assert key in str(caught.value)
    assert "topsecret" not in str(caught.value)


def test_credentials_inside_an_address_are_refused_without_showing_them() -> None:
    with pytest.raises(ConfigError) as caught:
        read({"milvus": {"address": "http://user:topsecret@host:9091"}})
    assert "topsecret" not in str(caught.value)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers(), max_size=2) | st.dates()
WORDS = """configVersion milvus minio backup storage grpc address port tlsMode auth type provider storageType bucketName
rootPath useSSL backupAddress backupPort gcPause enable transfer mode concurrency rest endpoint"""
KEYS = st.sampled_from(WORDS.split())


@settings(BUSY, max_examples=50)
@given(st.dictionaries(KEYS, st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=4), max_leaves=8), max_size=4))
def test_any_content_is_read_or_refused_with_a_config_error(config: dict[str, Any]) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(read(config), BackupYaml)
