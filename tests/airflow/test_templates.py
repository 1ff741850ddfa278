"""Templates and mapping: every argument a user may want to compute can be computed."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import pytest

from airflow_provider_milvus_backup.operators.backup import MilvusBackupOperator
from airflow_provider_milvus_backup.operators.base import MilvusBaseOperator
from airflow_provider_milvus_backup.operators.check import MilvusBackupCheckOperator
from airflow_provider_milvus_backup.operators.delete import MilvusDeleteBackupOperator
from airflow_provider_milvus_backup.operators.drill import MilvusRestoreDrillOperator
from airflow_provider_milvus_backup.operators.restore import MilvusRestoreOperator
from airflow_provider_milvus_backup.operators.retention import MilvusBackupRetentionOperator
from airflow_provider_milvus_backup.operators.verify import MilvusVerifyBackupOperator
from airflow_provider_milvus_backup.sensors.freshness import MilvusBackupFreshnessSensor
from airflow_provider_milvus_backup.sensors.imports import MilvusImportSensor

CLASSES: list[Any] = [
    MilvusBackupOperator,
    MilvusRestoreOperator,
    MilvusDeleteBackupOperator,
    MilvusBackupRetentionOperator,
    MilvusVerifyBackupOperator,
    MilvusBackupCheckOperator,
    MilvusRestoreDrillOperator,
    MilvusImportSensor,
    MilvusBackupFreshnessSensor,
]
REQUIRED: dict[Any, dict[str, Any]] = {
    MilvusRestoreOperator: {"backup_name": "b"},
    MilvusDeleteBackupOperator: {"backup_name": "b"},
    MilvusBackupFreshnessSensor: {"max_age": "26h"},
}
#: Arguments without a template, and why.
UNTEMPLATED = {
    "restore_indexes": "a switch: true or false",
    "restore_aliases": "a switch: true or false",
    "meta_only": "a switch: true or false",
    "wait_for_completion": "a switch that decides the shape of the DAG",
    "deferrable": "a switch that decides where the task waits",
    "cancel_on_kill": "a switch: true or false",
    "include_rbac": "a switch: true or false",
    "include_restore": "a switch: true or false",
    "restore_rbac": "a switch: true or false",
    "cut_at_flush": "a switch: true or false",
    "allow_downgrade": "a switch: true or false",
    "allow_empty": "a switch: true or false",
    "dry_run": "a switch: true or false",
    "fail_when_late": "a switch that decides whether the task waits",
    "min_count": "a number; a template would render to text",
    **{f"keep_{rule}": "a number; a template would render to text" for rule in ("last", "hourly", "daily", "weekly", "monthly", "yearly")},
    "object_lock_days": "a number; a template would render to text",
    "sample": "a number; a template would render to text",
    "max_seconds": "a number; a template would render to text",
    "max_shards": "a number; a template would render to text",
    "poll_interval": "a number; a template would render to text",
    "timeout": "a number; a template would render to text",
}


def arguments(kind: Any) -> dict[str, inspect.Parameter]:
    """Return the arguments that a class adds to those of every Airflow operator."""
    found: dict[str, inspect.Parameter] = {}
    for parent in kind.__mro__:
        if parent.__module__.startswith("airflow_provider_milvus_backup"):
            found |= inspect.signature(inspect.unwrap(parent.__init__)).parameters
    return {name: parameter for name, parameter in found.items() if name not in ("self", "kwargs")}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_text_list_and_dict_is_templated_and_the_rest_has_a_reason(kind: Any) -> None:
    given = arguments(kind)
    assert set(given) == set(kind.template_fields) | (set(given) & set(UNTEMPLATED))
    for name in given.keys() & UNTEMPLATED.keys() - set(kind.template_fields):
        kinds = set(str(given[name].annotation).replace(" ", "").split("|"))
        assert kinds <= {"bool", "int", "float", "timedelta", "None"}, f"{name}: {kinds}"


@pytest.mark.parametrize("kind", CLASSES)
def test_every_argument_is_keyword_only_and_kept_under_its_own_name(kind: Any) -> None:
    made = kind(task_id="made", **REQUIRED.get(kind, {}))
    for name, parameter in arguments(kind).items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, name
        expected = REQUIRED.get(kind, {}).get(name, parameter.default)
        # Of `timeout` and `dry_run` Airflow itself has others.
        assert getattr(made, {"dry_run": "shows_only"}.get(name, name)) == expected or name == "timeout", name


@pytest.mark.parametrize("kind", CLASSES)
def test_template_fields_keep_their_order_and_renderers_belong_to_fields(kind: Any) -> None:
    assert isinstance(kind.template_fields, tuple)
    assert len(set(kind.template_fields)) == len(kind.template_fields)
    assert kind.template_fields[-len(MilvusBaseOperator.template_fields) :] == MilvusBaseOperator.template_fields
    assert set(kind.template_fields_renderers) <= set(kind.template_fields)
    assert not getattr(kind, "template_ext", ()), "a value that ends in .yaml is a value, not a file with a template"


@pytest.mark.parametrize("kind", CLASSES)
def test_values_are_not_looked_at_before_they_are_rendered(kind: Any) -> None:
    made = kind(task_id="made", **dict.fromkeys(kind.template_fields, "{{ params.x }}"))
    made.render_template_fields({"params": {"x": "rendered"}})
    assert {name: getattr(made, name) for name in kind.template_fields} == dict.fromkeys(kind.template_fields, "rendered")


def test_templates_inside_lists_and_dicts_are_rendered() -> None:
    nested = {"collections": ["{{ x }}", "db.*"], "rename": {"a": "{{ x }}"}, "config": {"minio": {"bucketName": "{{ x }}"}}}
    made = MilvusRestoreOperator(task_id="made", backup_name="b", **nested)
    made.render_template_fields({"x": "y"})  # type: ignore[arg-type]
    assert (made.collections, made.rename, made.config) == (["y", "db.*"], {"a": "y"}, {"minio": {"bucketName": "y"}})


@pytest.mark.parametrize("kind", CLASSES)
def test_every_templated_argument_can_be_mapped_over(kind: Any) -> None:
    from airflow import DAG

    with DAG(dag_id="mapped", schedule=None):
        for name in kind.template_fields:
            fixed = {key: value for key, value in REQUIRED.get(kind, {}).items() if key != name}
            mapped = kind.partial(task_id=f"over_{name}", **fixed).expand(**{name: ["one", "two"]})
            assert type(mapped).__name__ == "MappedOperator"


@pytest.mark.parametrize("kind", [MilvusRestoreOperator, MilvusImportSensor, MilvusBackupFreshnessSensor])
def test_the_same_switch_means_the_same_everywhere(kind: Any) -> None:
    hints = typing.get_type_hints(inspect.unwrap(kind.__init__))
    assert hints["deferrable"] is bool
    assert arguments(kind)["deferrable"].default is False
