"""A real Milvus 2.3.5 and a real S3 (SeaweedFS) on random loopback ports, from pip wheels.

They run as child processes of the demo, the tests and the benchmarks and outlive neither their context manager nor a parent that is killed.
"""

from __future__ import annotations

import ctypes
import http.client
import importlib.resources
import json
import lzma
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
import yaml
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

# Servers are forked off, and gRPC's fork handlers abort about one child in 25 once a channel is open. Set before grpc is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

T = TypeVar("T")
Process = subprocess.Popen[bytes]

LOOPBACK = "127.0.0.1"
S3_ACCESS_KEY = "AKDEMOQ7X2M4ZT9LWB5C"
S3_SECRET_KEY = "vN3rK8sYp1TzHq6Wc0Lf5Gx2Jd9Ub7Ma4Eo1RiXt"
START_ATTEMPTS = 3
START_SECONDS = 120.0
PR_SET_PDEATHSIG = 1
# A Milvus whose proxy port is taken silently listens on another one, where nobody looks for it.
PORT_TAKEN = re.compile("address already in use|Proxy get available port when init")
SEAWEEDFS_OPTIONS = [
    *[f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}", "-dir=data", "-s3", "-s3.config=identities.json", "-master.telemetry=false"],
    "-master.peers=none",  # a single master need not wait for others: a second less to start
    *["-s3.port.iceberg=0", "-s3.port.lance=0"],  # on fixed ports they would kill a second instance
    *["-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock"],  # instead of in /tmp; relative, as their length is limited
    # Every bucket takes 7 volumes of its own and the default is 8 in all. They grow as needed, so high limits cost nothing.
    *["-volume.max=2000", "-master.volumeSizeLimitMB=1024"],
]
MILVUS_COMPONENTS = ["proxy", "rootCoord", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode"]

# PR_SET_PDEATHSIG fires when the *thread* that forked ends, not the process. One thread that lives as long as the interpreter
# therefore forks every server, so callers may start servers from any thread.
_FORKER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="demo-servers")
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class ServerStartError(RuntimeError):
    """A server did not become healthy; the message ends with the tail of its log."""


class PortTakenError(ServerStartError):
    """Somebody took a port between its choice and the start: other ports help."""


@dataclass(frozen=True)
class S3Server:
    """A running SeaweedFS and its admin identity."""

    endpoint_url: str
    access_key: str
    secret_key: str
    pid: int
    log_path: Path

    def client(self) -> Any:
        """Return a boto3 S3 client for the admin identity."""
        return s3_client(self.endpoint_url, self.access_key, self.secret_key)

    def create_bucket(self, name: str) -> None:
        """Create a bucket unless it is there, so that several servers may share one."""
        client = self.client()
        if name not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=name)


@dataclass
class MilvusServer:
    """A running Milvus; ``user`` and ``password`` are empty unless it asks for them."""

    host: str
    port: int
    metrics_port: int
    bucket: str
    root_path: str
    user: str
    password: str
    data_dir: Path
    log_path: Path
    _launch: Callable[[], Process] = field(repr=False)
    _process: Process = field(repr=False)

    @property
    def pid(self) -> int:
        """The process id, another one after each restart."""
        return self._process.pid

    def kill(self) -> None:
        """End Milvus as a power cut would, and return when it is gone."""
        _kill(self._process)

    def restart(self) -> None:
        """Start Milvus again on the same data and ports, and return when it is healthy."""
        self.kill()  # two processes on one data directory destroy it
        self._process = _retry_when_port_taken(self._launch)


def s3_client(endpoint_url: str, access_key: str, secret_key: str, **config: Any) -> Any:
    """Return a boto3 S3 client for any identity; ``config`` holds more options of botocore's ``Config``."""
    session = boto3.Session(access_key, secret_key, region_name="us-east-1")  # threads must not share boto3's default session
    # Without proxies={} a proxy set in the environment would be asked for a loopback address.
    return session.client("s3", endpoint_url=endpoint_url, config=Config(s3={"addressing_style": "path"}, proxies={}, **config))


@contextmanager
def s3_server(directory: Path, *, identities: Sequence[Mapping[str, Any]] | None = None) -> Iterator[S3Server]:
    """Run an S3 that keeps all its files below ``directory``.

    ``identities`` adds users beside the admin, for the cases where something is forbidden:
    ``{"name": "reader", "access_key": ..., "secret_key": ..., "actions": ["Read", "List"]}``.
    """
    directory = directory.resolve()
    (directory / "data").mkdir(parents=True, exist_ok=True)
    log_path = directory / "seaweedfs.log"
    weed = str(Path(sysconfig.get_path("scripts")) / "weed")
    admin_actions = ["Admin", "Read", "Write", "List", "Tagging"]
    admin = {"name": "admin", "access_key": S3_ACCESS_KEY, "secret_key": S3_SECRET_KEY, "actions": admin_actions}
    users = []
    for user in [admin, *(identities or [])]:
        credentials = [{"accessKey": user["access_key"], "secretKey": user["secret_key"]}]
        users.append({"name": user["name"], "credentials": credentials, "actions": user["actions"]})
    (directory / "identities.json").write_text(json.dumps({"identities": users}))

    with ExitStack() as cleanup:

        def start() -> tuple[Process, str]:
            names = ["master", "volume", "filer", "s3"]  # the last one's port is the endpoint's
            free = _free_ports(2 * len(names))
            command = [weed, "server", *SEAWEEDFS_OPTIONS]
            for name, port, grpc_port in zip(names, free[::2], free[1::2], strict=True):
                command += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc_port}"]
                # No option moves these, and SeaweedFS leaves them behind.
                cleanup.callback(Path(f"/tmp/seaweedfs-{name}-grpc-{grpc_port}.sock").unlink, missing_ok=True)
            endpoint_url = f"http://{LOOPBACK}:{port}"
            client = s3_client(endpoint_url, S3_ACCESS_KEY, S3_SECRET_KEY, read_timeout=5, retries={"max_attempts": 0})
            return _start(command, directory, {}, log_path, lambda: bool(client.list_buckets())), endpoint_url

        process, endpoint_url = _retry_when_port_taken(start)
        cleanup.callback(_kill, process)
        yield S3Server(endpoint_url, S3_ACCESS_KEY, S3_SECRET_KEY, process.pid, log_path)


@contextmanager
def milvus_server(
    directory: Path, s3: S3Server, *, bucket: str = "a-bucket", root_path: str = "files", auth: bool = False
) -> Iterator[MilvusServer]:
    """Run a Milvus that keeps its metadata and log below ``directory`` and its data in a bucket of ``s3``.

    Its etcd listens on loopback only; Milvus itself has no setting for that and listens on all addresses.
    """
    directory = directory.resolve()
    configs = directory / "configs"
    configs.mkdir(parents=True, exist_ok=True)
    log_path = directory / "milvus.log"
    binaries = _milvus_binaries()
    s3.create_bucket(bucket)

    def start() -> MilvusServer:
        etcd_port, etcd_peer_port, metrics_port, internal_port, *ports = _free_ports(4 + len(MILVUS_COMPONENTS))
        settings: dict[str, Any] = {
            "etcd.endpoints": f"{LOOPBACK}:{etcd_port}",
            "etcd.data.dir": str(directory / "data" / "etcd"),
            "localStorage.path": str(directory / "data"),
            "rocksmq.path": str(directory / "data" / "rocksmq"),
            "log.file.rootPath": "",  # the log goes to stdout only
            "proxy.internalPort": internal_port,
            "common.storageType": "remote",
            "common.session.ttl": 5,  # a restart waits until the sessions of the killed process have ended
            "common.security.authorizationEnabled": auth,
            "minio.address": LOOPBACK,
            "minio.port": urlsplit(s3.endpoint_url).port,
            "minio.accessKeyID": s3.access_key,
            "minio.secretAccessKey": s3.secret_key,
            "minio.bucketName": bucket,
            "minio.rootPath": root_path,
        }
        for component, port in zip(MILVUS_COMPONENTS, ports, strict=True):
            settings |= {f"{component}.ip": LOOPBACK, f"{component}.port": port}
        _write_milvus_config(configs, settings, etcd_port, etcd_peer_port)
        environment = {"DEPLOY_MODE": "STANDALONE", "LD_LIBRARY_PATH": str(binaries), "METRICS_PORT": str(metrics_port)}
        environment |= {
            "MILVUSCONF": str(configs),
            "ETCD_CONFIG_PATH": str(configs / "etcd.yaml"),
            "MILVUS_RUN_DIR": str(directory / "run"),
        }
        command = [str(binaries / "milvus"), "run", "standalone"]
        user, password = ("root", "Milvus") if auth else ("", "")

        def launch() -> Process:
            return _start(command, directory, environment, log_path, lambda: _milvus_healthy(metrics_port))

        return MilvusServer(LOOPBACK, ports[0], metrics_port, bucket, root_path, user, password, directory, log_path, launch, launch())

    server = _retry_when_port_taken(start)
    try:
        yield server
    finally:
        server.kill()


def _write_milvus_config(directory: Path, settings: Mapping[str, Any], etcd_port: int, etcd_peer_port: int) -> None:
    """Write the wheel's configuration with ``settings`` replaced, and the file that alone moves etcd's listeners."""
    defaults = importlib.resources.files("milvus") / "data"
    (directory / "glog.conf").write_bytes((defaults / "glog.conf").read_bytes())
    template = (defaults / "config.yaml.template").read_text()
    # A placeholder is {{ name }}, {{ name: default }} or {{ name(type): default }}.
    config = yaml.safe_load(re.sub(r"\{\{[^:}]*(?::\s*([^}]*?)\s*)?\}\}", r"\1", template))
    for dotted_key, value in settings.items():
        *parents, key = dotted_key.split(".")
        section = config
        for parent in parents:
            section = section[parent]
        if key not in section:
            raise KeyError(dotted_key)  # Milvus would ignore it silently
        section[key] = value
    (directory / "milvus.yaml").write_text(yaml.safe_dump(config))

    client_url, peer_url = f"http://{LOOPBACK}:{etcd_port}", f"http://{LOOPBACK}:{etcd_peer_port}"
    etcd: dict[str, Any] = {"name": "default", "initial-cluster": f"default={peer_url}", "log-outputs": ["stdout"]}
    etcd["data-dir"] = settings["etcd.data.dir"]
    etcd |= dict.fromkeys(["listen-client-urls", "advertise-client-urls"], client_url)
    etcd |= dict.fromkeys(["listen-peer-urls", "initial-advertise-peer-urls"], peer_url)
    (directory / "etcd.yaml").write_text(yaml.safe_dump(etcd))


def _milvus_binaries() -> Path:
    """Return the directory with the wheel's server, decompressed (246 MB) once for all instances and runs."""
    default = Path.home() / ".cache" / "airflow-provider-milvus-backup" / "milvus-2.3.5"
    target = Path(os.environ.get("MILVUS_BACKUP_DEMO_CACHE") or default).absolute()
    if (target / "milvus").exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}-") as scratch:
        complete = Path(scratch) / "bin"
        complete.mkdir()
        for packed in (importlib.resources.files("milvus") / "data" / "bin").iterdir():
            (complete / packed.name.removesuffix(".lzma")).write_bytes(lzma.decompress(packed.read_bytes()))
        (complete / "milvus").chmod(0o755)
        try:
            complete.rename(target)
        except OSError:
            if not (target / "milvus").exists():  # otherwise another process was faster, with the same files
                raise
    return target


def _milvus_healthy(metrics_port: int) -> bool:
    with closing(http.client.HTTPConnection(LOOPBACK, metrics_port, timeout=1)) as connection:
        connection.request("GET", "/healthz")
        return b"OK" in connection.getresponse().read()


def _free_ports(count: int) -> list[int]:
    """Return different free ports: the sockets are held together, so none comes twice."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for held in sockets:
            held.bind((LOOPBACK, 0))
        return [held.getsockname()[1] for held in sockets]


def _retry_when_port_taken(start: Callable[[], T]) -> T:
    """Call ``start`` again when somebody took one of its ports before the server did."""
    for _ in range(START_ATTEMPTS - 1):
        with suppress(PortTakenError):
            return start()
    return start()


def _start(command: list[str], directory: Path, environment: Mapping[str, str], log_path: Path, healthy: Callable[[], bool]) -> Process:
    """Start a server and return when it is healthy; ``healthy`` may also raise as long as it is not."""
    # The caller's environment holds cloud credentials, proxies and a home, and a server would use them.
    own = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(directory), "TMPDIR": str(directory)}
    own["AWS_EC2_METADATA_DISABLED"] = "true"  # Milvus' AWS SDK asks the cloud's metadata service whatever its keys
    parent = os.getpid()

    def die_with_parent() -> None:
        if _PRCTL is not None:
            _PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the line above could take effect
                os._exit(1)

    def log_text() -> str:
        return log_path.read_bytes()[log_start:].decode(errors="replace")

    with log_path.open("ab") as log:
        log_start = log.tell()
        process = _FORKER.submit(
            subprocess.Popen,
            command,
            cwd=directory,
            env={**own, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        ).result()
    try:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            is_healthy = False
            with suppress(OSError, http.client.HTTPException, BotoCoreError, ClientError):
                is_healthy = healthy()
            if PORT_TAKEN.search(log_text()):
                break
            if is_healthy:
                return process
            time.sleep(0.05)
    except BaseException:
        _kill(process)
        raise
    _kill(process)
    error = PortTakenError if PORT_TAKEN.search(log_text()) else ServerStartError
    raise error(f"{Path(command[0]).name} did not become healthy; end of its log {log_path}:\n{log_text()[-6000:]}")


def _kill(process: Process) -> None:
    """End a server and return when it is gone: only then are its ports and files free."""
    process.kill()  # after SIGTERM S3 takes 15 s, and a Milvus that has loaded a collection never ends
    process.wait()
    Path(f"/tmp/milvus/server_id_{process.pid}").unlink(missing_ok=True)  # Milvus leaves it, and no option moves it
    with suppress(OSError):  # there is none, or another Milvus has its file in it
        Path("/tmp/milvus").rmdir()
