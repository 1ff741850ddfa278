"""Whether a restored collection is like the one in the backup: its schema, its properties, its partitions, its indexes. Pure functions.

A restore itself makes sure that the binlogs fit (:func:`.schema.differences`). This looks at the rest as well: descriptions, lengths,
defaults, functions. A newer Milvus may add parameters and properties of its own, so more of these is no difference; everything else is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import meta, schema
from .creating import properties_to_create
from .features import VECTORS
from .raw_schema import schema_to_create

#: Keys of a field or a function that may hold more than in the backup.
_MAY_GROW = ("type_params", "params")
#: Properties by which rows expire: all of a collection when they are so many seconds old, or each at the time in this field.
_TTL, _TTL_FIELD = "collection.ttl.seconds", "ttl_field"
#: Not compared here: looked at on their own, or given anew by the restore or by Milvus, which numbers functions by itself.
_OWN = ("name", "index_params", "fields", "functions", "struct_array_fields", "properties", "id", "input_field_ids", "output_field_ids")


def schema_differences(collection: meta.Collection, raw: bytes | None, described: Any, max_shards: int | None = None) -> list[str]:
    """Return how a collection differs from the one in the backup, a short text for each difference.

    :param raw: the raw schema that was kept beside the backup, None where there is none
    :param described: DescribeCollectionResponse of the restored one
    :param max_shards: with how many shards it was restored at most
    """
    wanted = schema.from_proto(schema_to_create(collection.schema, raw, collection.name.collection))
    copy = type(described.schema).FromString(described.schema.SerializeToString())
    found = schema.from_proto(schema.in_id_order(copy))
    texts = _object("the collection", wanted, found)
    for kind in ("fields", "functions"):
        texts += _lists(kind[:-1], wanted.get(kind, []), found.get(kind, []))
    structs = {struct["name"]: struct for struct in found.get("struct_array_fields", [])}
    texts += _lists("field", wanted.get("struct_array_fields", []), list(structs.values()))
    for struct in wanted.get("struct_array_fields", []):
        if struct["name"] in structs:
            texts += _lists(f"field {struct['name']!r}, member", struct["fields"], structs[struct["name"]]["fields"])
    pairs = {pair.key: pair.value for pair in (*described.properties, *described.schema.properties)}
    texts += _missing("the collection: property", properties_to_create(collection), pairs)
    if described.consistency_level != collection.consistency_level:
        texts.append(f"the collection has consistency level {described.consistency_level} instead of {collection.consistency_level}")
    shards = min(collection.shards, max_shards or collection.shards)
    if shards and described.shards_num != shards:
        texts.append(f"the collection has {described.shards_num} shards instead of {shards}")
    return texts


def partition_differences(collection: meta.Collection, found: Iterable[str]) -> list[str]:
    """Return which partitions are missing or too many."""
    wanted, there = {partition.name for partition in collection.partitions}, set(found)
    texts = [f"partition {name!r} is missing" for name in sorted(wanted - there)]
    return texts + [f"partition {name!r} is not in the backup" for name in sorted(there - wanted)]


def index_differences(wanted: Sequence[meta.Index], found: Sequence[meta.Index]) -> list[str]:
    """Return how indexes differ from those in the backup, a short text for each difference."""
    left, texts = list(found), []
    for index in wanted:
        # Some releases of the official tool did not record names.
        alike = [one for one in left if one.field_name == index.field_name and index.index_name in ("", one.index_name)]
        if not alike:
            texts.append(f"index {index.index_name!r} of field {index.field_name!r} is missing")
            continue
        left.remove(alike[0])
        texts += _missing(f"index {alike[0].index_name!r}:", index.params, alike[0].params)
    return texts + [f"index {one.index_name!r} of field {one.field_name!r} is not in the backup" for one in left]


def may_expire(collection: meta.Collection) -> bool:
    """Return whether rows of a collection are no longer found after some time, though nobody deletes them."""
    properties = properties_to_create(collection)
    seconds = properties.get(_TTL, "")
    return bool(properties.get(_TTL_FIELD)) or (seconds.isdecimal() and int(seconds) > 0)


def vector_fields(document: Mapping[str, Any]) -> list[str]:
    """Return the names of all vector fields of a schema, those of arrays of structs as ``struct[member]``."""
    structs = document.get("struct_array_fields", [])
    members = [(f"{struct['name']}[{field['name']}]", field) for struct in structs for field in struct["fields"]]
    pairs = [*((field["name"], field) for field in document["fields"]), *members]
    return [name for name, field in pairs if field.get("data_type") in VECTORS]


def without_index(collection: meta.Collection) -> list[str]:
    """Return the vector fields that have no index in the backup; Milvus loads no collection that has such fields."""
    indexed = {index.field_name for index in collection.indexes}
    return [name for name in vector_fields(collection.schema) if name not in indexed]


def _lists(kind: str, wanted: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> list[str]:
    there = {one["name"]: one for one in found}
    texts = [f"{kind} {one['name']!r} is missing" for one in wanted if one["name"] not in there]
    names = {one["name"] for one in wanted}
    texts += [f"{kind} {one['name']!r} is not in the backup" for one in found if one["name"] not in names]
    for one in wanted:
        if one["name"] in there:
            texts += _object(f"{kind} {one['name']!r}", one, there[one["name"]])
    return texts


def _object(what: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    texts = []
    for key in sorted((wanted.keys() | found.keys()) - set(_OWN)):
        mine, there = wanted.get(key), found.get(key)
        if key in _MAY_GROW:
            texts += _missing(f"{what}: {key}", _pairs(mine), _pairs(there))
        elif mine != there:
            texts.append(f"{what} has {key} {there!r} instead of {mine!r}")
    return texts


def _missing(what: str, wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    wrong = [(key, value) for key, value in sorted(wanted.items()) if found.get(key) != value]
    return [f"{what} {key!r} is {found.get(key)!r} instead of {value!r}" for key, value in wrong]


def _pairs(value: Any) -> dict[str, str]:
    return {pair["key"]: pair["value"] for pair in value or []}
