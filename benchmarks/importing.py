"""operator_import: what importing the operators and the sensor adds to importing ``airflow.sdk``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from . import Result, load, remark

RUNS = 15
PROGRAM = """
import time
import airflow.sdk
start, cpu = time.perf_counter(), time.process_time()
import airflow_provider_milvus_backup.operators.backup, airflow_provider_milvus_backup.operators.restore
import airflow_provider_milvus_backup.sensors.imports
print(time.perf_counter() - start, time.process_time() - cpu)
"""


def run() -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as home:
        # Without PYTHONDONTWRITEBYTECODE: an installed package has its .pyc files. The first run, which writes them, does not count.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"AIRFLOW_HOME": home, "PYTHONPYCACHEPREFIX": f"{home}/pyc"}
        runs = [_once(environment) for _ in range(RUNS + 1)][1:]
    times = sorted(wall for wall, _ in runs)
    cpu = min(cpu for _, cpu in runs)
    remark(f"{RUNS} runs: {1000 * times[0]:.0f} to {1000 * times[-1]:.0f} ms, at least {1000 * cpu:.0f} ms of CPU, {load()}")
    yield Result("operator_import", round(1000 * times[0], 1), "ms", "<= 50")


def _once(environment: dict[str, str]) -> tuple[float, float]:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, check=True, text=True)
    wall, cpu = ended.stdout.split()[-2:]
    return float(wall), float(cpu)
