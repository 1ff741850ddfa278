"""A throw-away Airflow: its settings, its connections to the demo's servers, and its database."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import servers

REPO = Path(__file__).resolve().parents[1]
EXAMPLE_DAGS = REPO / "example_dags"

Connections = dict[str, dict[str, Any]]


class AirflowError(RuntimeError):
    """Airflow could not be prepared; the message says what it printed."""


def environment(home: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process of this Airflow. Settings and connections of whoever runs the demo stay out of it."""
    own = {name: value for name, value in inherited.items() if not name.startswith("AIRFLOW_")}
    return own | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLE_DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def migrate(env: Mapping[str, str]) -> None:
    """Create the metadata database."""
    run(env, "db", "migrate")


def run(env: Mapping[str, str], *arguments: str) -> None:
    """Run ``airflow <arguments>``; what it prints is shown only when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise AirflowError(f"`airflow {' '.join(arguments)}` exited with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")


def milvus_connection(milvus: servers.MilvusServer, description: str, aws_conn_id: str = "aws_default") -> dict[str, Any]:
    """Return the connection to a Milvus, with the storage it uses itself."""
    management = f"http://{milvus.host}:{milvus.metrics_port}"
    extra = {"bucket_name": milvus.bucket, "root_path": milvus.root_path, "aws_conn_id": aws_conn_id, "management_endpoint": management}
    return {"conn_type": "milvus", "description": description, "host": milvus.host, "port": milvus.port, "extra": extra}


def s3_connection(s3: servers.S3Server, description: str) -> dict[str, Any]:
    """Return the connection to an S3."""
    extra = {"endpoint_url": s3.endpoint_url, "region_name": "us-east-1"}
    return {"conn_type": "aws", "description": description, "login": s3.access_key, "password": s3.secret_key, "extra": extra}


def import_connections(env: Mapping[str, str], connections: Connections) -> None:
    """Keep connections in the database, where the UI lists them."""
    path = Path(env["AIRFLOW_HOME"]) / "connections.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(connections))
    run(env, "connections", "import", str(path))
    path.unlink()


def as_environment(connections: Connections) -> dict[str, str]:
    """Return connections the way Airflow finds them without a database entry."""
    return {f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(fields) for conn_id, fields in connections.items()}
