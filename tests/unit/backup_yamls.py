"""Two files of milvus-backup, one of each schema, and what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from airflow_provider_milvus_backup.core.backup_yaml import BackupYaml, YamlStorage, read

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
        management_endpoint="http://datacoord:9091",
        pause_gc=False,
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
