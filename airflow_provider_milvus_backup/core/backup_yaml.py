"""Reading the configuration file of ``milvus-backup`` (``backup.yaml``), both schemas: v1 and ``configVersion: v2``.

Only what the file itself says is returned. The defaults of ``milvus-backup`` are not filled in, because connections and the
hook's own defaults take that place, and none of its environment variables (``MILVUS_ADDRESS``, ``MINIO_SECRET_KEY``,
``BACKUP_STORAGE_AUTH_ACCESS_KEY_ID`` …) is read, because an Airflow connection is where such a value belongs.

As in ``milvus-backup``, a key without any value counts as absent, while an empty string ends inheritance.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from .errors import ConfigError

Keys = tuple[str, ...]

# Field of the result: how to read it, its key in v1, its key in v2.
_GENERAL = {
    "milvus_host": ("host", "milvus.address", "milvus.grpc.address"),
    "milvus_port": ("port", "milvus.port", "milvus.grpc.port"),
    "milvus_user": ("text", "milvus.user", "milvus.user"),
    "milvus_password": ("text", "milvus.password", "milvus.password"),
    "milvus_secure": ("tls", "milvus.tlsMode", "milvus.grpc.tlsMode"),
    "milvus_ca_cert": ("text", "milvus.caCertPath", "milvus.grpc.caCertPath"),
    "milvus_client_cert": ("text", "milvus.mtlsCertPath", "milvus.grpc.mtlsCertPath"),
    "milvus_client_key": ("text", "milvus.mtlsKeyPath", "milvus.grpc.mtlsKeyPath"),
    "milvus_server_name": ("text", "milvus.serverName", "milvus.grpc.serverName"),
    "rest_endpoint": ("text", "", "milvus.rest.endpoint"),
    "management_endpoint": ("text", "backup.gcPause.address", "milvus.management.endpoint"),
    "pause_gc": ("flag", "backup.gcPause.enable", "backup.pauseGC"),
    "concurrency": ("count", "backup.parallelism.copydata", "transfer.concurrency"),
    "multipart_threshold_mib": ("count", "minio.multipartCopyThresholdMiB", "transfer.multipartCopyThresholdMiB"),
    "streaming": ("transfer", "minio.crossStorage", "transfer.mode"),
}
# The same below `minio.` and `minio.backup` in v1, `milvus.storage.` and `backup.storage.` in v2.
_STORAGE = {
    "provider": ("provider", "storageType", "provider"),
    "address": ("host", "address", "address"),
    "port": ("port", "port", "port"),
    "secure": ("flag", "useSSL", "useSSL"),
    "region": ("text", "region", "region"),
    "access_key": ("text", "accessKeyID", "auth.accessKeyID"),
    "secret_key": ("text", "secretAccessKey", "auth.secretAccessKey"),
    "session_token": ("text", "token", "auth.sessionToken"),
    "use_iam": ("iam", "useIAM", "auth.type"),
    "bucket": ("text", "bucketName", "bucketName"),
    "root_path": ("path", "rootPath", "rootPath"),
}
_PREFIXES = {"v1": ("minio.", "minio.backup"), "v2": ("milvus.storage.", "backup.storage.")}
# v1 knows more than one key for the provider; the first that is present counts.
_V1_PROVIDER: tuple[Keys, Keys] = (
    ("storage.storagetype", "minio.storagetype", "minio.cloudprovider"),
    ("storage.backupstoragetype", "minio.backupstoragetype"),
)


def _number(high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", text) or not 1 <= int(text) <= high:
            raise ValueError
        return int(text)

    return convert


def _matching(pattern: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return convert


_PROVIDERS = {name: name for name in ("minio", "s3", "aws", "gcp", "hwc", "tencent", "aliyun")}
_PROVIDERS |= {"tc": "tencent", "ali": "aliyun", "alibaba": "aliyun", "alicloud": "aliyun"}
_FLAGS = {**dict.fromkeys(("true", "t", "yes", "on", "1"), True), **dict.fromkeys(("false", "f", "no", "off", "0"), False)}
_HOST = r"[A-Za-z0-9._-]+|[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*"
# How a text becomes a value of each kind (a table knows its texts in lower case), and what the text should be.
_KINDS: dict[str, tuple[Callable[[str], Any] | dict[str, Any], str]] = {
    "text": (str, "text"),
    "port": (_number(65535), "a port from 1 to 65535"),
    "count": (_number(2**31 - 1), "a number from 1 on"),
    "flag": (_FLAGS, "true or false"),
    "host": (_matching(_HOST), "a host name or IP address alone; port and TLS have keys of their own"),
    "provider": (_PROVIDERS, f"a store that speaks S3 ({', '.join(_PROVIDERS)}); this version cannot use any other"),
    "v1 tls": ({"0": "disabled", "1": "server", "2": "mutual"}, "0 (no TLS), 1 (TLS) or 2 (mutual TLS)"),
    "v2 tls": ({mode: mode for mode in ("disabled", "server", "mutual")}, "disabled, server or mutual"),
    "v1 transfer": ({text: flag or None for text, flag in _FLAGS.items()}, "true or false"),
    "v2 transfer": ({"auto": None, "direct": False, "streaming": True}, "auto, direct or streaming"),
    "v1 iam": (_FLAGS, "true or false"),
    "v2 iam": ({"static": False, "iam": True, "default": True}, "static, iam or default"),
}
# Plain AWS S3, whose endpoint boto finds by region; dualstack, FIPS and private names stay URLs.
_AWS = re.compile(r"s3\.amazonaws\.com|s3[.-]([a-z]{2}(?:-[a-z]+)+-\d+)\.amazonaws\.com(?:\.cn)?")
#: What an address without a port means in this file format.
_STORAGE_PORT = 9000
#: A file of milvus-backup has about a hundred; aliases could make billions of a few lines.
_MOST_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class YamlStorage:
    """One object storage; None where the file does not say. ``endpoint_url`` is also None where the address is plain AWS S3."""

    provider: str | None = None
    endpoint_url: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    #: True: credentials come from the machine's role or the default chain; then there are no keys here.
    use_iam: bool | None = None
    bucket: str | None = None
    #: The empty string is a value of its own: the root of the bucket.
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
    rest_endpoint: str | None = None
    management_endpoint: str | None = None
    #: Whether to pause Milvus's garbage collection meanwhile.
    pause_gc: bool | None = None
    storage: YamlStorage = YamlStorage()
    backup_storage: YamlStorage = YamlStorage()
    #: Object copies in flight.
    concurrency: int | None = None
    multipart_threshold_mib: int | None = None
    #: True: copy through this process. False: let the store copy. None: the endpoints decide.
    streaming: bool | None = None
    #: Keys of the file that nothing here uses, as the file spells them, sorted.
    ignored: tuple[str, ...] = ()


def read(config: str | os.PathLike[str] | Mapping[str, Any]) -> BackupYaml:
    """Return what a backup.yaml says; ``config`` is its path or its already parsed content.

    Raises ConfigError, which names the file and the key and never shows a secret, for anything that cannot be used.
    """
    file = _File(config, "config") if isinstance(config, Mapping) else _File(_load(config), str(config))
    general: dict[str, Any] = {name: file.read(kind, keys) for name, (kind, keys) in _general(file.version).items()}
    mode = general["milvus_secure"]
    general["milvus_secure"] = mode and mode != "disabled"
    pair = general["milvus_client_cert"] and general["milvus_client_key"]
    if mode == "mutual" and not pair and file.version == "v2":
        raise ConfigError(f"{file.label}: milvus.grpc.tlsMode mutual needs mtlsCertPath and mtlsKeyPath; set both or use server")
    if mode and not (mode == "mutual" and pair):  # v1 takes mutual TLS without a key pair for plain TLS
        general |= {"milvus_client_cert": None, "milvus_client_key": None}
    storage, backup = (_storage(file, keys) for keys in _storages(file.version))
    return BackupYaml(**general, storage=storage, backup_storage=backup, ignored=file.unused())


def _general(version: str) -> dict[str, tuple[str, Keys]]:
    names = {name: (kind, v1 if version == "v1" else v2) for name, (kind, v1, v2) in _GENERAL.items()}
    return {name: (kind, (key.lower(),) if key else ()) for name, (kind, key) in names.items()}


def _storages(version: str) -> tuple[dict[str, Keys], dict[str, Keys]]:
    """Return the keys of each field of Milvus's storage, and of the backup storage followed by those it inherits from."""
    own, backup = (_below(prefix, version) for prefix in _PREFIXES[version])
    if version == "v1":
        own["provider"], backup["provider"] = _V1_PROVIDER
    return own, {name: keys if (version, name) == ("v2", "root_path") else keys + own[name] for name, keys in backup.items()}


def _below(prefix: str, version: str) -> dict[str, Keys]:
    return {name: ((prefix + (v1 if version == "v1" else v2)).lower(),) for name, (_, v1, v2) in _STORAGE.items()}


def _storage(file: _File, keys: dict[str, Keys]) -> YamlStorage:
    values: dict[str, Any] = {name: file.read(kind, keys[name]) for name, (kind, *_) in _STORAGE.items()}
    address, port, secure = values.pop("address"), values.pop("port") or _STORAGE_PORT, values.pop("secure")
    if values["use_iam"]:
        values |= dict.fromkeys(("access_key", "secret_key", "session_token"))
    if aws := _AWS.fullmatch((address or "").lower()):
        values["region"] = values["region"] or aws[1]
    elif address:
        host = f"[{address}]" if ":" in address else address
        scheme, usual = ("https", 443) if secure else ("http", 80)
        values["endpoint_url"] = f"{scheme}://{host}" + ("" if port == usual else f":{port}")
    return YamlStorage(**values)


class _File:
    """The leaves of the file by dotted lower-case key, and which of them were read."""

    def __init__(self, document: Mapping[Any, Any], label: str) -> None:
        self.label = label
        self.values: dict[str, Any] = {}
        self.spelled: dict[str, str] = {}
        self.used: set[str] = set()
        for key, value in _leaves(document, label):
            if key.lower() in self.values:
                raise ConfigError(f"{label}: {key} is there twice (capitals do not matter); keep one of them")
            self.values[key.lower()], self.spelled[key.lower()] = value, key
        declared = self.read("text", ("configversion",))
        self.version: str = (declared or "v1").lower()
        if self.version not in _PREFIXES:
            raise ConfigError(f"{label}: configVersion is {declared!r}, not v1 or v2")
        known, newer = _known(self.version), _known("v2") - _known("v1")
        for key, spelled in self.spelled.items():
            if key in newer and not declared:
                raise ConfigError(f"{label}: {spelled} is a key of schema v2; write `configVersion: v2` into the file")
            if any(other.startswith(f"{key}.") for other in known):
                raise ConfigError(f"{label}: {spelled} must be a section with keys below it, not a value")
            if inside := next((other for other in known if key.startswith(f"{other}.")), None):
                raise ConfigError(f"{label}: {spelled[: len(inside)]} must be a value, not a section")

    def read(self, kind: str, keys: Keys) -> Any:
        """Return the value of the first key that is present, as its kind; None where none is present or it is empty."""
        key = next((key for key in keys if key in self.values), None)
        if key is None:
            return None
        self.used.add(key)
        value = self.values[key]
        if not isinstance(value, (str, int, float)):
            raise ConfigError(f"{self.label}: {self.spelled[key]} must be a single value, not a {type(value).__name__}")
        try:
            text = str(value).strip()
            text.encode()
        except ValueError:  # half a character, or a number of thousands of digits
            raise ConfigError(f"{self.label}: {self.spelled[key]} cannot be read as text") from None
        if kind == "path" or not text:
            return text if kind == "path" else None
        convert, expected = _KINDS.get(kind) or _KINDS[f"{self.version} {kind}"]
        try:
            return convert[text.lower()] if isinstance(convert, dict) else convert(text)
        except (KeyError, ValueError):
            shown = "a value with credentials" if "@" in text else repr(text)
            raise ConfigError(f"{self.label}: {self.spelled[key]} is {shown}, not {expected}") from None

    def unused(self) -> tuple[str, ...]:
        return tuple(sorted(spelled for key, spelled in self.spelled.items() if key not in self.used))


def _known(version: str) -> set[str]:
    storages = (keys for storage in _storages(version) for keys in storage.values())
    return set().union(*storages, *(keys for _, keys in _general(version).values()))


def _leaves(
    document: Mapping[Any, Any], label: str, prefix: str = "", depth: int = 0, seen: Iterator[int] | None = None
) -> Iterator[tuple[str, Any]]:
    seen = seen or count(1)
    if depth > 20:
        raise ConfigError(f"{label}: {prefix[:60]} is nested too deeply for a configuration")
    for key, value in document.items():
        if next(seen) > _MOST_KEYS:
            raise ConfigError(f"{label}: holds more than {_MOST_KEYS:,} keys, too many for a configuration")
        try:
            name = f"{prefix}{key}"
            name.encode()
        except ValueError:
            raise ConfigError(f"{label}: a key below {prefix[:60] or 'the top level'} cannot be read as text") from None
        if isinstance(value, Mapping):
            yield from _leaves(value, label, f"{name}.", depth + 1, seen)
        elif value is not None:
            yield name, value


def _load(path: str | os.PathLike[str]) -> Mapping[Any, Any]:
    """Return the parsed file. Scalars stay the text they were written as, so that a password like 0123 is not read as a number."""
    import yaml

    if not isinstance(path, (str, os.PathLike)):
        raise ConfigError(f"config is a {type(path).__name__}, not the path or the content of a backup.yaml")

    class Loader(yaml.SafeLoader):
        """Knows null and merge keys, and no other type than text."""

        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            super().flatten_mapping(node)
            if len(node.value) > _MOST_KEYS:
                raise yaml.YAMLError

    Loader.yaml_implicit_resolvers = {
        first: [item for item in resolvers if item[0].endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    # Where such a tag is written out; SafeLoader's own constructors crash on what is no number or time.
    text: dict[str | None, Any] = {
        f"tag:yaml.org,2002:{tag}": yaml.SafeLoader.construct_yaml_str for tag in ("int", "float", "bool", "timestamp")
    }
    Loader.yaml_constructors = {**yaml.SafeLoader.yaml_constructors, **text}
    try:
        with Path(path).open("rb") as stream:
            document = yaml.load(stream, Loader)  # noqa: S506 - a SafeLoader that knows fewer types
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read as a milvus-backup configuration: {error.strerror}; check the path") from None
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        # The parser's own message may quote the line, and with it a secret.
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(f"{path}: is not valid YAML{f' at line {mark.line + 1}' if mark else ''}; correct the file") from None
    if not isinstance(document, Mapping):
        raise ConfigError(f"{path}: holds {'nothing' if document is None else 'no keys'}; it must be a milvus-backup configuration")
    return document
