"""In which requests a collection's fields must be created so that each gets its id again. Pure functions.

Milvus ignores the ids it is given. CreateCollection numbers by position from 100: the plain fields, then the dynamic field and the
namespace field which it adds itself, then each array of structs followed by its members. A field that is added later gets the highest
id plus one (``internal/rootcoord/create_collection_task.go``, ``ddl_callbacks_alter_collection_add_field.go``). So a collection that
once was altered is made by the same steps. Import matches data to fields by id: a wrong id loses or swaps columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import meta
from .errors import SchemaMismatch
from .raw_schema import schema_to_create
from .schema import DYNAMIC_FIELD, MAX_FIELD_ID, dynamic_id

if TYPE_CHECKING:
    from pymilvus.grpc_gen import schema_pb2

FIRST_ID = 100
#: Far more fields than a collection can ever have had.
_MANY = 100_000
_WHY = (
    "Milvus numbers fields in the order in which they are created, so a field that was dropped, or a dynamic field that was enabled "
    "late, leaves ids that cannot be made again"
)
_REMEDY = "Copy the rows into a new collection of this schema in Milvus, and back that up"


@dataclass(frozen=True, slots=True)
class Creation:
    """The steps that give every field its id again.

    :param first: what CreateCollection is given
    :param later: the fields and arrays of structs that are added afterwards, in this order
    """

    first: schema_pb2.CollectionSchema
    later: list[Any]


def creation(collection: meta.Collection, raw: bytes | None, name: str) -> Creation:
    """Return how to make the collection anew under ``name``.

    :param raw: the raw schema that was kept beside the backup, None where there is none
    :raises SchemaMismatch: the ids cannot be made again; the message names the field and why
    """
    whole = schema_to_create(collection.schema, raw, name)
    plain, structs = list(whole.fields), list(whole.struct_array_fields)
    namespace = int(getattr(whole, "enable_namespace", False))
    next_id = FIRST_ID
    first: set[str] = set()
    for field in plain:
        if field.fieldID == next_id:
            first.add(field.name)
            next_id += 1
    if whole.enable_dynamic_field:
        _check_dynamic_id(collection, next_id, namespace)
        next_id += 1
    next_id += namespace
    later: list[Any] = []
    for one in sorted([field for field in plain if field.name not in first] + structs, key=lambda one: int(one.fieldID)):
        members = [member.fieldID for member in getattr(one, "fields", ())]
        if [one.fieldID, *members] != list(range(next_id, next_id + 1 + len(members))):
            raise SchemaMismatch(
                f"{collection.name}: field {one.name!r} of the backup has id {one.fieldID}{f' and members {members}' if members else ''}, "
                f"Milvus would give it {next_id}. {_WHY}. {_REMEDY}"
            )
        next_id += 1 + len(members)
        if members and not later:
            first.add(one.name)
        else:
            later.append(one)
    _check_functions(collection, whole, {one.name for one in later})
    for repeated in (whole.fields, whole.struct_array_fields):
        kept = [type(one).FromString(one.SerializeToString()) for one in repeated if one.name in first]
        del repeated[:]
        repeated.extend(kept)
    return Creation(whole, later)


def _check_dynamic_id(collection: meta.Collection, expected: int, namespace: int) -> None:
    """Raise SchemaMismatch where the dynamic field had another id than it will get, or may have had.

    Import leaves out a column that no field has, so a wrong id would lose everything the dynamic field holds.
    """
    shown = dynamic_id(collection.schema)
    taken = {shown} if shown else _hidden_ids(collection)
    if taken and (expected not in taken or taken - set(range(expected, expected + 1 + namespace))):
        raise SchemaMismatch(
            f"{collection.name}: the dynamic field {DYNAMIC_FIELD!r} of the backup has id {' or '.join(map(str, sorted(taken)))}, Milvus "
            f"would give it {expected}. {_WHY}. {_REMEDY}"
        )


def _hidden_ids(collection: meta.Collection) -> set[int]:
    """Return all ids of fields that DescribeCollection did not show, as far as they are known.

    Segments of storage version 1 name the columns they have, those of version 2 only groups of columns. Milvus 3.0 keeps the highest id
    that a field ever had.
    """
    columns = {logs.field_id for segment in collection.segments() if segment.storage_version < 2 for logs in segment.inserts}
    pairs = [*((pair["key"], pair["value"]) for pair in collection.schema.get("properties", [])), *collection.properties]
    for key, value in pairs:
        if key == MAX_FIELD_ID and value.isdecimal() and int(value) < FIRST_ID + _MANY:
            columns.update(range(FIRST_ID, int(value) + 1))
    return {column for column in columns if column >= FIRST_ID} - _known_ids(collection.schema)


def _known_ids(document: dict[str, Any]) -> set[int]:
    structs = document.get("struct_array_fields", [])
    fields = [*document["fields"], *structs, *(field for struct in structs for field in struct["fields"])]
    return {int(field.get("fieldID", 0)) for field in fields}


def _check_functions(collection: meta.Collection, whole: schema_pb2.CollectionSchema, later: set[str]) -> None:
    for function in whole.functions:
        if touched := sorted(later.intersection((*function.input_field_names, *function.output_field_names))):
            raise SchemaMismatch(
                f"{collection.name}: function {function.name!r} works on {touched[0]!r}, a field that was added to the collection after "
                f"its dynamic field; Milvus takes functions only together with all their fields. {_REMEDY}"
            )
