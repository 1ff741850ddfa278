"""
One throw-away Airflow per test session, the same on Airflow 2.11 and 3.x.

Airflow reads its settings once, when it is first imported. So they are set here, when pytest imports this file and
before it imports any test, and not in a fixture.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.airflow import dag_runs
from tests.airflow.real import real_airflow  # noqa: F401
from tests.airflow.stack import backed_up, connected, milvus_b, s3, stack, wide  # noqa: F401

if "airflow" in sys.modules:
    raise RuntimeError(
        "airflow was imported before tests/airflow/conftest.py: these tests would use the Airflow of whoever runs them "
        f"(it came from {sys.modules['airflow'].__file__})"
    )

AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="airflow-home-"))

# Settings and connections of whoever runs the tests must not decide their outcome.
for _name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[_name]

os.environ.update(
    AIRFLOW_HOME=str(AIRFLOW_HOME),
    AIRFLOW__CORE__DAGS_FOLDER=str(dag_runs.EXAMPLES),
    # Airflow 3 runs only DAGs of a bundle; Airflow 2 does not know this setting and runs any.
    AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST=json.dumps(
        [
            {"name": path.parent.name, "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {"path": str(path)}}
            for path in (dag_runs.EXAMPLES, dag_runs.DAGS)
        ]
    ),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{AIRFLOW_HOME / 'airflow.db'}",
    AIRFLOW__LOGGING__COLORED_CONSOLE_LOG="False",
    AIRFLOW__LOGGING__FAB_LOGGING_LEVEL="WARNING",
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED="False",
)

_airflow = importlib.util.find_spec("airflow")


def _has(part: str) -> bool:
    return bool(_airflow and _airflow.origin and (Path(_airflow.origin).parent / part).exists())


collect_ignore = []
if not _has("api_fastapi"):  # the REST API by which `airflow standalone` is driven came with Airflow 3
    collect_ignore += ["test_real_triggerer.py", "test_real_kills.py", "test_real_freshness.py"]
if not _has("sdk/bases/resumablejobmixin.py"):  # came with the state store of tasks, in Airflow 3.3
    collect_ignore += ["test_task_state_store.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Allow for the time that the first test of a module spends on servers and on what all of them share, on a machine that is busy."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(1800))


def pytest_unconfigure() -> None:
    """Remove the home. A hook, because unlike ``atexit`` it does not run in processes that Airflow forks."""
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


def _airflow_cli(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "airflow", *arguments], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"airflow {' '.join(arguments)} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def airflow_cli() -> Callable[..., str]:
    """Return ``airflow_cli("dags", "list")``: runs ``airflow`` as a user would and returns what it printed."""
    return _airflow_cli


@pytest.fixture(scope="session")
def airflow_db() -> Path:
    """Create the metadata database; only the tests that ask for it pay its seven seconds."""
    _airflow_cli("db", "migrate")
    return AIRFLOW_HOME / "airflow.db"


@pytest.fixture(scope="session", autouse=True)
def triggers_fire_at_once() -> Iterator[None]:
    """Take the pause out of triggers: ``dag.test()`` has no scheduler that could notice a deferral late. Real triggerers keep it."""
    from airflow_provider_milvus_backup.triggers import imports

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imports, "EARLIEST", 0.0)
        yield


@pytest.fixture
def set_connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """
    Return ``set_connection(conn_id, conn_type=…, host=…, extra={…})``, undone after the test.

    The connection lives in the environment, where this process, its children and either Airflow find it.
    """

    def set_one(conn_id: str, **fields: Any) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))

    return set_one


def pytest_configure(config: pytest.Config) -> None:
    """Let pass what Airflow and its own dependencies warn of inside ``dag.test()``; our own warnings stay errors."""
    for warning in (
        # fastapi's test client, which `dag.test()` talks to its own API with
        "ignore:Using `httpx` with `starlette.testclient`",
        # flask_sqlalchemy of Airflow 2.11's web server
        "ignore:'_app_ctx_stack' is deprecated:DeprecationWarning",
    ):
        config.addinivalue_line("filterwarnings", warning)
