"""Reading the configuration file of ``milvus-backup`` (``backup.yaml``), both schemas: v1 and ``configVersion: v2``.

Only what the file itself says is returned. The defaults of ``milvus-backup`` are not filled in, because connections and the
hook's own defaults take that place, and none of its environment variables (``MILVUS_ADDRESS``, ``MINIO_SECRET_KEY``,
``BACKUP_STORAGE_AUTH_ACCESS_KEY_ID`` …) is read, because an Airflow connection is where such a value belongs.

As in ``milvus-backup``, a key that is present but empty is not inherited from anywhere; a key without any value counts as absent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ConfigError


@dataclass(frozen=True, slots=True)
class YamlStorage:
    """One object storage; None where the file does not say. ``endpoint_url`` is also None where the address is plain AWS S3."""

    provider: str | None = None
    endpoint_url: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    #: True: credentials come from the machine's role or the default chain, and the file's keys do not count.
    use_iam: bool | None = None
    bucket: str | None = None
    #: The empty string is a value of its own here: the bucket's root.
    root_path: str | None = None


@dataclass(frozen=True, slots=True)
class BackupYaml:
    """What a backup.yaml says; None where it does not say. ``backup_storage`` includes what it inherits from ``storage``."""

    milvus_host: str | None = None
    milvus_port: int | None = None
    milvus_user: str | None = None
    milvus_password: str | None = field(default=None, repr=False)
    milvus_secure: bool | None = None
    milvus_ca_cert: str | None = None
    milvus_client_cert: str | None = None
    milvus_client_key: str | None = None
    milvus_server_name: str | None = None
    milvus_rest_endpoint: str | None = None
    milvus_management_endpoint: str | None = None
    storage: YamlStorage = YamlStorage()
    backup_storage: YamlStorage = YamlStorage()
    #: Object copies in flight.
    concurrency: int | None = None
    #: Collections backed up at a time.
    collections_concurrency: int | None = None
    #: Collections restored at a time.
    restore_collections_concurrency: int | None = None
    #: Import jobs running at a time.
    import_jobs: int | None = None
    #: Segments in one import job at most.
    segments_per_import_job: int | None = None
    multipart_threshold_mib: int | None = None
    #: True: copy through this process. False: let the store copy. None: decide by the endpoints.
    streaming: bool | None = None
    gc_pause: bool | None = None
    #: Keys in the file that nothing here uses, as the file spells them, sorted.
    ignored: tuple[str, ...] = ()


def read(config: str | os.PathLike[str] | Mapping[str, Any]) -> BackupYaml:
    """Return what a backup.yaml says; ``config`` is its path or its already parsed content.

    Raises ConfigError, which names the file and the key and never shows a secret, for anything that cannot be used.
    """
    label = "the backup configuration" if isinstance(config, Mapping) else os.fspath(config)
    file = _File(config if isinstance(config, Mapping) else _load(label), label)
    version = (file.text("configversion") or "v1").lower()
    if version not in _KEYS:
        raise file.wrong("configversion", version, "`v1` or `v2`")
    file.check_sections()
    if version == "v1" and (newer := [name for name in file.names if name in _ONLY_V2]) and not file.has("configversion"):
        raise ConfigError(f"{label}: {file.spelled(newer[0])} is a key of schema v2; add the line `configVersion: v2` to the file")
    keys, storage, backup = _KEYS[version], _STORAGE[version], _BACKUP[version]
    mutual, secure = _tls(file, keys["tls"], version)
    return BackupYaml(
        milvus_host=file.host(keys["host"]),
        milvus_port=file.integer(keys["port"], 65535),
        milvus_user=file.text(keys["user"]),
        milvus_password=file.text(keys["password"]),
        milvus_secure=secure,
        milvus_ca_cert=file.text(keys["ca_cert"]),
        milvus_client_cert=file.text(keys["client_cert"]) if mutual else None,
        milvus_client_key=file.text(keys["client_key"]) if mutual else None,
        milvus_server_name=file.text(keys["server_name"]),
        milvus_rest_endpoint=file.url(keys.get("rest")),
        milvus_management_endpoint=file.url(keys["management"]),
        storage=_storage(file, {name: (key,) for name, key in storage.items()}),
        backup_storage=_storage(
            file, {n: (key,) if version == "v2" and n == "root_path" else (key, storage[n]) for n, key in backup.items()}
        ),
        concurrency=file.integer(keys["copies"]),
        collections_concurrency=file.integer(keys["collections"]),
        restore_collections_concurrency=file.integer(keys["restore_collections"]),
        import_jobs=file.integer(keys["import_jobs"]),
        segments_per_import_job=file.integer(keys.get("job_segments")),
        multipart_threshold_mib=file.integer(keys["multipart"]),
        streaming=_streaming(file, keys["transfer"], version),
        gc_pause=file.boolean(keys["gc_pause"]),
        ignored=file.unused(),
    )


_PROVIDERS = {"minio": "minio", "s3": "s3", "aws": "aws", "gcp": "gcp", "hwc": "hwc", "tencent": "tencent", "tc": "tencent"}
_PROVIDERS |= dict.fromkeys(("aliyun", "ali", "alibaba", "alicloud"), "aliyun")
_TRUE, _FALSE = ("true", "yes", "on", "1", "t", "y"), ("false", "no", "off", "0", "f", "n")
_TLS = {"v1": ("0", "1", "2"), "v2": ("disabled", "server", "mutual")}
_AMAZON = re.compile(r"s3\.amazonaws\.com|s3[.-]([a-z]{2}(?:-[a-z]+)+-\d+)\.amazonaws\.com(?:\.cn)?")
#: The port that the file format itself means by an address without a port.
_STORAGE_PORT = 9000


def _lower(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.lower().split())


# Several keys of one meaning stand in order of precedence, joined by `|`.
_KEYS = {
    "v1": _lower("""
        host=milvus.address port=milvus.port user=milvus.user password=milvus.password tls=milvus.tlsMode
        ca_cert=milvus.caCertPath client_cert=milvus.mtlsCertPath client_key=milvus.mtlsKeyPath server_name=milvus.serverName
        management=backup.gcPause.address gc_pause=backup.gcPause.enable transfer=minio.crossStorage
        copies=backup.parallelism.copydata collections=backup.parallelism.backupCollection
        restore_collections=backup.parallelism.restoreCollection import_jobs=backup.parallelism.importJob
        multipart=minio.multipartCopyThresholdMiB"""),
    "v2": _lower("""
        host=milvus.grpc.address port=milvus.grpc.port user=milvus.user password=milvus.password tls=milvus.grpc.tlsMode
        ca_cert=milvus.grpc.caCertPath client_cert=milvus.grpc.mtlsCertPath client_key=milvus.grpc.mtlsKeyPath
        server_name=milvus.grpc.serverName rest=milvus.rest.endpoint management=milvus.management.endpoint
        gc_pause=backup.pauseGC transfer=transfer.mode copies=transfer.concurrency
        collections=backup.concurrency.collections restore_collections=restore.concurrency.collections
        import_jobs=restore.concurrency.importJobs job_segments=restore.maxSegmentsPerImportJob
        multipart=transfer.multipartCopyThresholdMiB"""),
}
_STORAGE = {
    "v1": _lower("""
        provider=storage.storageType|minio.storageType|minio.cloudProvider address=minio.address port=minio.port
        ssl=minio.useSSL region=minio.region access_key=minio.accessKeyID secret_key=minio.secretAccessKey
        session_token=minio.token auth=minio.useIAM bucket=minio.bucketName root_path=minio.rootPath"""),
    "v2": _lower("""
        provider=milvus.storage.provider address=milvus.storage.address port=milvus.storage.port ssl=milvus.storage.useSSL
        region=milvus.storage.region access_key=milvus.storage.auth.accessKeyID secret_key=milvus.storage.auth.secretAccessKey
        session_token=milvus.storage.auth.sessionToken auth=milvus.storage.auth.type bucket=milvus.storage.bucketName
        root_path=milvus.storage.rootPath"""),
}
_BACKUP = {
    "v1": {
        name: "|".join(re.sub(r"\.(?:cloudprovider|(\w+))$", lambda m: f".backup{m[1] or 'storagetype'}", k) for k in key.split("|"))
        for name, key in _STORAGE["v1"].items()
    },
    "v2": {name: key.replace("milvus.", "backup.") for name, key in _STORAGE["v2"].items()},
}
_KNOWN = {
    version: {key for table in (_KEYS, _STORAGE, _BACKUP) for keys in table[version].values() for key in keys.split("|")}
    for version in _KEYS
}
_ONLY_V2 = _KNOWN["v2"] - _KNOWN["v1"]
