"""Parsing a DAG must not pay for the clients of Milvus and S3."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CLIENTS = ["pymilvus", "grpc", "obstore", "boto3", "botocore", "pandas", "numpy"]
CODE = """
import importlib, json, sys
module, what, *clients = sys.argv[1:]
imported = importlib.import_module(module)
if what:
    from airflow import DAG
    needed = {"Restore": {"backup_name": "b"}, "Freshness": {"max_age": "1d"}}
    with DAG(dag_id="parsed", schedule=None):
        getattr(imported, what)(task_id="made", **next((fixed for part, fixed in needed.items() if part in what), {}))
print(json.dumps([name for name in clients if name in sys.modules]))
"""
PACKAGE = "airflow_provider_milvus_backup"


@pytest.mark.parametrize(
    ("module", "operator"),
    [
        (f"{PACKAGE}.operators.backup", "MilvusBackupOperator"),
        (f"{PACKAGE}.operators.restore", "MilvusRestoreOperator"),
        (f"{PACKAGE}.operators.check", "MilvusBackupCheckOperator"),
        (f"{PACKAGE}.operators.verify", "MilvusVerifyBackupOperator"),
        (f"{PACKAGE}.operators.drill", "MilvusRestoreDrillOperator"),
        (f"{PACKAGE}.sensors.imports", "MilvusImportSensor"),
        (f"{PACKAGE}.triggers.imports", ""),
        (f"{PACKAGE}.sensors.freshness", "MilvusBackupFreshnessSensor"),
        (f"{PACKAGE}.triggers.freshness", ""),
        (f"{PACKAGE}.hooks.milvus_backup", ""),
    ],
)
def test_importing_and_constructing_load_no_client(module: str, operator: str) -> None:
    command = [sys.executable, "-c", CODE, module, operator, *CLIENTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
