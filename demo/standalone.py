"""`airflow standalone`: scheduler, triggerer, DAG processor and UI as a child process that ends with its context manager."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]

from . import airflow_home, servers

USER = "admin"
START_SECONDS = 240.0
STOP_SECONDS = 10.0
#: Airflow 3 has no credentials for its REST API but a token, and tokens end.
_PASSWORDS = "simple_auth_manager_passwords.json.generated"
_COMPONENTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")
# Without this a proxy set in the environment would be asked for a loopback address.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Airflow:
    """A running Airflow."""

    url: str
    user: str
    password: str
    process: subprocess.Popen[bytes]
    log_path: Path

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call the REST API as the user and return its answer."""
        token = _request("POST", f"{self.url}/auth/token", {"username": self.user, "password": self.password})["access_token"]
        return _request(method, f"{self.url}/api/v2{path}", body, {"Authorization": f"Bearer {token}"})


def settings(home: Path) -> dict[str, str]:
    """Return the environment that makes several Airflows fit on one machine, and one on a small one."""
    port, trigger_logs, worker_logs = servers._free_ports(3)
    return {
        # `airflow standalone` starts its components as `airflow`, which is on nobody's path.
        "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "AIRFLOW__API__HOST": servers.LOOPBACK,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://{servers.LOOPBACK}:{port}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__PARALLELISM": "4",  # as many processes are started at once
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / _PASSWORDS),
    }


@contextmanager
def running(env: Mapping[str, str]) -> Iterator[Airflow]:
    """Run Airflow with the environment ``env``, of which :func:`settings` is a part, and yield it when all of it is healthy."""
    home = Path(env["AIRFLOW_HOME"])
    log_path = home / "standalone.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            env=dict(env),
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is for us: we stop Airflow in our own order
            preexec_fn=_prepare,  # noqa: PLW1509 (nothing else runs in other threads here)
        )
    try:
        url = env["AIRFLOW__API__BASE_URL"]
        _wait_until_healthy(process, url, log_path)
        passwords = json.loads(Path(env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]).read_text())
        yield Airflow(url, USER, passwords[USER], process, log_path)
    finally:
        _stop(process)


def _prepare() -> None:
    """Make SIGINT stop Airflow, which is the signal it stops cleanly after, also when this program dies without saying it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it, and so would its children
    if servers._PRCTL is not None:
        servers._PRCTL(servers.PR_SET_PDEATHSIG, signal.SIGINT)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End Airflow and everything it has started: a running task is in the same session, but in a process group of its own."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    while left := _session(process.pid):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()  # a dead child stays in the list until somebody asks for it
        time.sleep(0.05)
    process.wait(STOP_SECONDS)


def _session(session_id: int) -> list[int]:
    found = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(pid) == session_id and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log_path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError, ValueError, KeyError):
            health = _request("GET", f"{url}/api/v2/monitor/health")
            if all(health[component]["status"] == "healthy" for component in _COMPONENTS):
                return
        time.sleep(0.5)
    raise airflow_home.AirflowError(f"`airflow standalone` did not become healthy; end of its log:\n{log_path.read_text()[-4000:]}")


def _request(method: str, url: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with _OPENER.open(request, timeout=30) as response:
            return json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        raise airflow_home.AirflowError(f"{method} {url}: {error.code} {error.read().decode(errors='replace')[:500]}") from error
