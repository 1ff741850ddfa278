"""Which capabilities of a Milvus a collection's schema needs. Pure functions.

A server that does not know a type or an attribute ignores it, or fails with a message that names neither the field nor the remedy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .capabilities import Capability, first_release
from .errors import UnsupportedServer
from .names import CollectionName

#: The capability that a data type needs, by its number in ``schemapb.DataType``.
DATA_TYPES = {
    22: Capability.ARRAY,
    24: Capability.GEOMETRY,
    25: Capability.TEXT,
    26: Capability.TIMESTAMPTZ,
    102: Capability.FLOAT16_VECTOR,
    103: Capability.FLOAT16_VECTOR,
    104: Capability.SPARSE_VECTOR,
    105: Capability.INT8_VECTOR,
    106: Capability.STRUCT_ARRAY,
    200: Capability.STRUCT_ARRAY,
    201: Capability.STRUCT_ARRAY,
}
VECTORS = range(100, 107)
_BM25 = 1
_ANALYZER = ("analyzer_params", "multi_analyzer_params", "enable_analyzer", "enable_match")


def features(document: dict[str, Any]) -> list[tuple[str, Capability]]:
    """Return (what needs it, capability) for all that not every supported Milvus knows; from the meta JSON of a schema.

    Default values and clustering keys are not among them: the first are older than all that is supported, without the second data is
    only laid out less well.
    """
    needed = [(f"field {field['name']!r}", capability) for field in document["fields"] for capability in _of_field(field)]
    for function in document.get("functions", []):
        capability = Capability.FUNCTIONS if function.get("type") == _BM25 else Capability.MORE_FUNCTIONS
        needed.append((f"function {function.get('name', '')!r}", capability))
    needed += [(f"field {struct['name']!r}", Capability.STRUCT_ARRAY) for struct in document.get("struct_array_fields", [])]
    return needed


def _of_field(field: dict[str, Any]) -> list[Capability]:
    data_type = field.get("data_type", 0)
    needed = [DATA_TYPES[data_type]] if data_type in DATA_TYPES else []
    if field.get("nullable"):
        needed.append(Capability.NULLABLE_VECTOR if data_type in VECTORS else Capability.NULLABLE)
    if any(pair["key"] in _ANALYZER and pair["value"] != "false" for pair in field.get("type_params", [])):
        needed.append(Capability.ANALYZER)
    return needed


def check(name: CollectionName, needed: list[tuple[str, Capability]], version: str, can: Callable[[Capability], bool]) -> None:
    """Raise UnsupportedServer that names what a collection has and a Milvus cannot, and the first release that can.

    :param name: the collection, as it is called in the backup
    :param needed: what :func:`features` returned
    :param can: whether this Milvus has a capability
    """
    for what, capability in needed:
        if not can(capability):
            raise UnsupportedServer(
                f"{name}: {what} needs a Milvus that can {capability.value}, which is {first_release(capability)} or newer; this one is "
                f"{version}. Restore into a newer Milvus"
            )
