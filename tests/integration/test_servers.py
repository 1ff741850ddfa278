"""What the demo, the tests and the benchmarks expect of their real servers."""

from __future__ import annotations

import random
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from demo import servers

READER = {"name": "reader", "access_key": "READERKEY", "secret_key": "reader-secret", "actions": ["Read", "List"]}
ORPHAN_MAKER = """
import pathlib, sys, threading, time
from demo import servers

def start():
    s3 = context.__enter__()
    print(s3.pid, flush=True)

context = servers.s3_server(pathlib.Path(sys.argv[1]))
threading.Thread(target=start).start()
time.sleep(300)
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def sockets_in_tmp(log_path: Path) -> list[Path]:
    return [Path(name) for name in re.findall(r"/tmp/seaweedfs-\S+\.sock", log_path.read_text())]


def test_s3_lets_each_identity_do_only_what_it_may_and_leaves_nothing(tmp_path: Path) -> None:
    with servers.s3_server(tmp_path, identities=[READER]) as s3:
        s3.create_bucket("a-bucket")
        s3.client().put_object(Bucket="a-bucket", Key="key", Body=b"value")
        reader = servers.s3_client(s3.endpoint_url, "READERKEY", "reader-secret")
        assert reader.get_object(Bucket="a-bucket", Key="key")["Body"].read() == b"value"
        with pytest.raises(ClientError, match="AccessDenied"):
            reader.put_object(Bucket="a-bucket", Key="key", Body=b"other")
        assert any(path.exists() for path in sockets_in_tmp(s3.log_path))
    assert not running(s3.pid)
    assert not any(path.exists() for path in sockets_in_tmp(s3.log_path))


def test_milvus_keeps_its_data_in_its_bucket_and_over_a_power_cut(tmp_path: Path) -> None:
    from pymilvus import MilvusClient

    with (
        servers.s3_server(tmp_path / "s3") as s3,
        servers.milvus_server(tmp_path / "milvus", s3, bucket="vectors", root_path="deep/er", auth=True) as milvus,
    ):
        uri = f"http://{milvus.host}:{milvus.port}"
        with pytest.raises(Exception, match="Fail connecting"):
            MilvusClient(uri)
        client = MilvusClient(uri, user=milvus.user, password=milvus.password)
        client.create_collection("numbers", dimension=8)
        client.insert("numbers", [{"id": i, "vector": [random.random() for _ in range(8)]} for i in range(100)])
        client.flush("numbers")
        client.close()
        assert s3.client().list_objects_v2(Bucket="vectors", Prefix="deep/er/insert_log/")["KeyCount"] > 0

        first_pid = milvus.pid
        milvus.restart()
        assert not running(first_pid)
        client = MilvusClient(uri, user=milvus.user, password=milvus.password)
        client.load_collection("numbers")
        assert len(client.query("numbers", filter="id >= 0", output_fields=["id"])) == 100
        client.close()
    assert not running(milvus.pid)
    assert not Path(f"/tmp/milvus/server_id_{milvus.pid}").exists()


def test_no_server_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN_MAKER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(1)  # the thread that asked for the server has ended meanwhile, and the server has not
        assert running(pid)
        parent.kill()
    deadline = time.monotonic() + 60
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(pid)
    for path in sockets_in_tmp(tmp_path / "seaweedfs.log"):
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("taken", [2, 4], ids=["metrics", "proxy"])
def test_milvus_starts_elsewhere_when_a_port_was_taken_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    free_ports = servers._free_ports
    with servers.s3_server(tmp_path / "s3") as s3, socket.create_server((servers.LOOPBACK, 0)) as squatter:
        squatted = squatter.getsockname()[1]
        choices: list[list[int]] = []

        def choose(count: int) -> list[int]:
            ports = free_ports(count)
            if not choices:
                ports[taken] = squatted
            choices.append(ports)
            return ports

        monkeypatch.setattr(servers, "_free_ports", choose)
        with servers.milvus_server(tmp_path / "milvus", s3) as milvus:
            assert len(choices) >= 2  # somebody else may take a port as well
            assert squatted not in (milvus.port, milvus.metrics_port)


def test_a_failed_start_shows_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "SEAWEEDFS_OPTIONS", ["-dir=no-such-directory"])
    with pytest.raises(servers.ServerStartError, match=r"(?s)seaweedfs\.log:\n.*no-such-directory"), servers.s3_server(tmp_path):
        pass
