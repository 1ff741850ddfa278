from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

import jsonschema
import pytest

from airflow_provider_milvus_backup import connection_form
from airflow_provider_milvus_backup.get_provider_info import EXTRA_FIELDS, get_provider_info

DISTRIBUTION = "airflow-provider-milvus-backup"
HAS_WEB_FORMS = find_spec("flask_appbuilder") is not None  # Airflow 2 draws connection forms with it


def airflow_2_only(test: Callable[..., None]) -> Callable[..., None] | None:
    """Leave a test out where Airflow has no web forms; there is nothing to run then."""
    return test if HAS_WEB_FORMS else None


def airflow_3_only(test: Callable[..., None]) -> Callable[..., None] | None:
    """Leave a test out where Airflow has no connection page of its own."""
    return None if HAS_WEB_FORMS else test


# What a connection of this type may carry in its extra. Saved connections use these keys, so they never change.
EXTRA_KEYS = [
    "secure",
    "ca_cert",
    "client_cert",
    "client_key",
    "server_name",
    "token",
    "rest_endpoint",
    "management_endpoint",
    "bucket_name",
    "root_path",
    "aws_conn_id",
]


def run_python(code: str) -> Any:
    """Run `code` in a new process and return the JSON of the last line it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def cli_json(airflow_cli: Callable[..., str]) -> Callable[..., Any]:
    """Return what an `airflow` command answers with `--output json`, without what Airflow logs around it."""

    def run(*arguments: str) -> Any:
        lines = airflow_cli(*arguments, "--output", "json").splitlines()
        return next(json.loads(line) for line in reversed(lines) if line.startswith("[{"))

    return run


def connection_type() -> dict[str, Any]:
    info: dict[str, Any] = get_provider_info()
    (only,) = info["connection-types"]
    return dict(only)


# --- the entry point ---------------------------------------------------------------------------------------------


def test_the_entry_point_loads_without_importing_airflow_or_a_client() -> None:
    # Airflow 3.2 and later load it while their configuration starts up: an import of airflow there can stop them.
    code = """
import importlib.metadata, json, sys
before = set(sys.modules)
(entry,) = [e for e in importlib.metadata.distribution("airflow-provider-milvus-backup").entry_points
            if e.group == "apache_airflow_provider"]
info = entry.load()()
print(json.dumps({"package": info["package-name"], "new": sorted(set(sys.modules) - before)}))
"""
    answer = run_python(code)
    assert answer["package"] == DISTRIBUTION
    assert answer["new"] == ["airflow_provider_milvus_backup", "airflow_provider_milvus_backup.get_provider_info"]


def test_the_package_name_is_the_canonical_name_of_the_distribution() -> None:
    # Another spelling raises out of Airflow's discovery and takes down every `airflow` command.
    name = importlib.metadata.distribution(DISTRIBUTION).metadata["Name"]
    assert get_provider_info()["package-name"] == re.sub(r"[-_.]+", "-", name).lower() == DISTRIBUTION


def test_the_metadata_is_valid_for_the_installed_airflow() -> None:
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_every_call_returns_its_own_copy() -> None:
    changed = connection_type()
    changed["ui-field-behaviour"]["placeholders"].clear()
    assert connection_type()["ui-field-behaviour"]["placeholders"]


# --- the table of the form ---------------------------------------------------------------------------------------


def test_the_extra_keys_are_the_documented_ones() -> None:
    assert list(connection_type()["conn-fields"]) == EXTRA_KEYS


@pytest.mark.parametrize(("key", "kind", "label", "description"), EXTRA_FIELDS, ids=EXTRA_KEYS)
def test_every_extra_field_is_optional_and_explained(key: str, kind: str, label: str, description: str) -> None:
    field = connection_type()["conn-fields"][key]
    assert field["schema"]["type"] == ["boolean" if kind == "boolean" else "string", "null"]
    assert "default" not in field["schema"], "a saved default would win over backup.yaml"
    assert field["label"] == label
    assert field["description"] == description
    assert description.endswith(".")


def test_the_token_is_the_only_extra_shown_as_a_password() -> None:
    fields = connection_type()["conn-fields"]
    assert [key for key in fields if fields[key]["schema"].get("format") == "password"] == ["token"]


def test_metadata_and_hook_methods_describe_the_standard_fields_alike() -> None:
    from_metadata = {key.replace("-", "_"): value for key, value in connection_type()["ui-field-behaviour"].items()}
    assert from_metadata == connection_form.get_ui_field_behaviour()


@airflow_2_only
@pytest.mark.filterwarnings("default")  # the web packages of Airflow 2 warn of each other when they are imported
def test_metadata_and_hook_widgets_describe_the_extra_fields_alike() -> None:
    from wtforms import Form

    class BoundForm(Form):  # type: ignore[misc]
        pass

    for key, widget in connection_form.get_connection_form_widgets().items():
        setattr(BoundForm, key, widget)
    schemas = {
        "BooleanField": {"type": ["boolean", "null"]},
        "PasswordField": {"type": ["string", "null"], "format": "password"},
        "StringField": {"type": ["string", "null"]},
    }
    assert {
        field.name: {
            "label": field.label.text,
            "description": field.description,
            "schema": schemas[type(field).__name__],
        }
        for field in BoundForm()
    } == connection_type()["conn-fields"]


@airflow_2_only
@pytest.mark.filterwarnings("default")  # the web packages of Airflow 2 warn of each other when they are imported
def test_airflow_2_keeps_the_token_when_another_field_is_edited() -> None:
    # Its web form shows every saved secret as an empty box, and deletes the keys whose boxes come back empty.
    from airflow.www import views
    from werkzeug.datastructures import MultiDict
    from wtforms import Form

    class TokenForm(Form):
        token = connection_form.get_connection_form_widgets()["token"]

    def box(form: TokenForm) -> str:
        return re.search(r'value="([^"]*)"', str(form.token()))[1]

    saved = TokenForm()
    saved.token.data = "s3cret"  # as `prefill_form` does
    assert box(saved) == views.SENSITIVE_FIELD_PLACEHOLDER
    assert box(TokenForm()) == ""
    # Shown again because of a mistake elsewhere: neither the typed secret, nor a promise to keep the old one.
    assert box(TokenForm(MultiDict({"token": "typed"}))) == ""
    assert box(TokenForm(MultiDict({"token": views.SENSITIVE_FIELD_PLACEHOLDER}))) == views.SENSITIVE_FIELD_PLACEHOLDER


# --- what Airflow makes of it ------------------------------------------------------------------------------------


def test_the_airflow_command_shows_the_provider(cli_json: Callable[..., Any]) -> None:
    (provider,) = cli_json("providers", "get", DISTRIBUTION)
    assert provider == {"Provider": DISTRIBUTION, "Version": importlib.metadata.version(DISTRIBUTION)}


def test_the_airflow_command_lists_the_hook(cli_json: Callable[..., Any]) -> None:
    (hook,) = [row for row in cli_json("providers", "hooks") if row["connection_type"] == "milvus"]
    assert hook["class"] == connection_type()["hook-class-name"]
    assert hook["conn_id_attribute_name"] == "milvus_conn_id"
    assert hook["hook_name"] == "Milvus"
    assert hook["package_name"] == DISTRIBUTION


def test_the_airflow_command_lists_the_trigger_module(cli_json: Callable[..., Any]) -> None:
    triggers = [row for row in cli_json("providers", "triggers") if row["package_name"] == DISTRIBUTION]
    assert {row["class"] for row in triggers} == {f"airflow_provider_milvus_backup.triggers.{name}" for name in ("imports", "freshness")}
    assert len(triggers) == 2


@pytest.fixture(scope="module")
def form_in_airflow() -> dict[str, Any]:
    """The milvus form as the installed Airflow's ProvidersManager holds it, after asking for it and for the hook."""
    return dict(
        run_python(
            """
import json, warnings
from airflow.providers_manager import ProvidersManager

calls = []
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
    for name in ("get_ui_field_behaviour", "get_connection_form_widgets"):
        def counted(cls, original=getattr(MilvusBackupHook, name), name=name):
            calls.append(name)
            return original()
        setattr(MilvusBackupHook, name, classmethod(counted))
    manager = ProvidersManager()
    hook = manager.hooks.get("milvus")
    prefix = "extra__milvus__"
    widgets = {k[len(prefix):]: v for k, v in manager.connection_form_widgets.items() if k.startswith(prefix)}
    behaviour = manager.field_behaviours.get("milvus")
print(json.dumps({
    "hook_name": hook and hook.hook_name,
    "testable": hook and hook.connection_testable,
    "keys": list(widgets),
    "sensitive": [k for k, v in widgets.items() if v.is_sensitive],
    "from_metadata": {k: v.field for k, v in widgets.items() if isinstance(v.field, dict)},
    "behaviour": behaviour,
    "knows_metadata": hasattr(manager, "_load_ui_metadata"),
    "calls": calls,
    "warnings": [str(w.message) for w in caught if "milvus" in str(w.message).lower()],
}))
"""
        )
    )


def test_airflow_builds_the_whole_form(form_in_airflow: dict[str, Any]) -> None:
    assert form_in_airflow["hook_name"] == "Milvus"
    assert form_in_airflow["keys"] == EXTRA_KEYS
    assert form_in_airflow["sensitive"] == ["token"]
    assert form_in_airflow["behaviour"]["relabeling"] == connection_form.RELABELING
    assert form_in_airflow["behaviour"]["placeholders"]["port"] == "19530"
    assert form_in_airflow["behaviour"]["placeholders"]["extra__milvus__bucket_name"] == "a-bucket"


def test_airflow_warns_of_nothing_in_the_form(form_in_airflow: dict[str, Any]) -> None:
    assert form_in_airflow["warnings"] == []


def test_the_deprecated_hook_methods_are_called_only_by_airflows_that_know_no_metadata(form_in_airflow: dict[str, Any]) -> None:
    if form_in_airflow["knows_metadata"]:
        assert form_in_airflow["calls"] == []
        assert list(form_in_airflow["from_metadata"]) == EXTRA_KEYS
    else:
        assert "get_connection_form_widgets" in form_in_airflow["calls"]
        assert form_in_airflow["from_metadata"] == {}


@airflow_3_only
def test_the_connection_page_of_airflow_3_gets_every_field() -> None:
    # In a new process: Airflow 3.0 and 3.1 put stand-ins for flask_appbuilder into sys.modules.
    page = run_python("""
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
types = HookMetaService.hook_meta_data()
print(([m for m in types if m.connection_type == "milvus"] if any(m.extra_fields for m in types) else types)[0].model_dump_json())
""")
    assert page["hook_name"] == "Milvus"
    assert page["standard_fields"]["port"]["placeholder"] == "19530"
    assert {
        key: (field["schema"]["title"], field["description"], field["schema"]["type"]) for key, field in page["extra_fields"].items()
    } == {
        key: (label, description, ["boolean" if kind == "boolean" else "string", "null"]) for key, kind, label, description in EXTRA_FIELDS
    }
    assert page["extra_fields"]["token"]["schema"]["format"] == "password"
