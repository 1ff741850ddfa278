"""What does not fit is said field by field, with both sides."""

from __future__ import annotations

from typing import Any

from airflow_provider_milvus_backup.core import schema

Json = dict[str, Any]


def simple(**rest: Any) -> Json:
    key = {"fieldID": 100, "name": "pk", "is_primary_key": True, "data_type": 5, **rest}
    return {"name": "docs", "fields": [key, {"fieldID": 101, "name": "vec", "data_type": 101}]}


def test_differences_name_the_field_and_both_sides() -> None:
    found = simple(fieldID=103)
    found["fields"][1] = {"fieldID": 101, "name": "vec", "data_type": 102, "type_params": [{"key": "dim", "value": "9"}]}
    found["fields"].append({"fieldID": 102, "name": "more", "data_type": 22, "element_type": 5})
    expected = simple()
    expected["fields"].append({"fieldID": 104, "name": "gone", "data_type": 4711})
    assert schema.differences(expected, found) == [
        "'gone' is missing",
        "'more' is not in the backup",
        "'pk' has id 103 Int64 is_primary_key instead of id 100 Int64 is_primary_key",
        "'vec' has id 101 Float16Vector dim 9 instead of id 101 FloatVector",
    ]
    assert schema.differences(expected, expected) == []


def dynamic(field_id: int | None) -> Json:
    document = {**simple(), "enable_dynamic_field": True}
    if field_id is not None:
        document["fields"].append({"fieldID": field_id, "name": schema.DYNAMIC_FIELD, "data_type": 23, "is_dynamic": True})
    return document


def test_a_dynamic_field_is_compared_whether_or_not_the_server_shows_it() -> None:
    for shown, hidden in ((102, None), (None, 102), (None, None), (102, 102)):
        assert schema.differences(dynamic(shown), dynamic(hidden)) == []
    assert schema.differences(dynamic(102), dynamic(105)) == ["'$meta' has id 105 instead of id 102"]
    assert schema.differences(dynamic(102), simple()) == ["'$meta' is missing"]
    assert schema.differences(simple(), dynamic(None)) == ["'$meta' is not in the backup"]
