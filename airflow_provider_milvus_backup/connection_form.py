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


def get_ui_field_behaviour() -> dict[str, Any]:
    """Return which standard fields are hidden and what the others are called."""
    return {
        "hidden_fields": list(HIDDEN_FIELDS),
        "relabeling": dict(RELABELING),
        "placeholders": dict(PLACEHOLDERS),
    }


def get_connection_form_widgets() -> dict[str, Any]:
    """Return one form field per key of the connection's extra."""
    # Inside the function: only a web server has these packages, and Airflow 3.0 and 3.1 replace them just for this call.
    from flask_appbuilder.fieldwidgets import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        BS3PasswordFieldWidget,
        BS3TextFieldWidget,
    )
    from wtforms import BooleanField, PasswordField, StringField  # type: ignore[import-untyped,unused-ignore]
    from wtforms.validators import Optional  # type: ignore[import-untyped,unused-ignore]

    def field(kind: str, label: str, description: str) -> Any:
        if kind == "boolean":
            return BooleanField(label, description=description)
        if kind == "password":
            return PasswordField(label, validators=[Optional()], description=description, widget=BS3PasswordFieldWidget())
        return StringField(label, validators=[Optional()], description=description, widget=BS3TextFieldWidget())

    return {key: field(kind, label, description) for key, kind, label, description in EXTRA_FIELDS}
