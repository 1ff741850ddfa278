"""
The ``milvus`` connection form for Airflow 2.11 to 3.1, which ask the hook class for it.

Airflow 3.2 and later read the same table from the provider metadata and never call these functions.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_milvus_backup.get_provider_info import (
    EXTRA_FIELDS,
    HIDDEN_FIELDS,
    PLACEHOLDERS,
    RELABELING,
)

UNCHANGED = "RATHER_LONG_SENSITIVE_FIELD_PLACEHOLDER"
"""What Airflow 2.11 takes for "keep the saved secret"; ``SENSITIVE_FIELD_PLACEHOLDER`` of its ``airflow.www.views``."""


def get_ui_field_behaviour() -> dict[str, Any]:
    """Return which standard fields are hidden and what the others are called."""
    return {
        "hidden_fields": list(HIDDEN_FIELDS),
        "relabeling": dict(RELABELING),
        "placeholders": dict(PLACEHOLDERS),
    }


def get_connection_form_widgets() -> dict[str, Any]:
    """Return one form field per key of the connection's extra."""
    # Inside the function: only a web server has these packages, and Airflow 3.1 replaces them just for this call.
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from wtforms import BooleanField, PasswordField, StringField
    from wtforms.validators import Optional

    class KeptPasswordWidget(BS3PasswordFieldWidget):  # type: ignore[misc,unused-ignore]
        """
        A password box that survives the editing of another field.

        Airflow 2.11 shows a saved secret as an empty box, and deletes the key when the box comes back empty.
        """

        def __init__(self) -> None:
            super().__init__()
            self.hide_value = False  # or wtforms empties what is set below

        def __call__(self, field: Any, **kwargs: Any) -> Any:
            loaded = bool(field.data) and not field.raw_data
            kwargs["value"] = UNCHANGED if loaded or field.data == UNCHANGED else ""
            return super().__call__(field, **kwargs)

    def field(kind: str, label: str, description: str) -> Any:
        if kind == "boolean":
            return BooleanField(label, description=description)
        if kind == "password":
            return PasswordField(label, validators=[Optional()], description=description, widget=KeptPasswordWidget())
        return StringField(label, validators=[Optional()], description=description, widget=BS3TextFieldWidget())

    return {key: field(kind, label, description) for key, kind, label, description in EXTRA_FIELDS}
