"""Counting rows and searching vectors in a loaded collection, as of now: what a drill asks Milvus for."""

from __future__ import annotations

import json

from .drill_checks import SearchCheck
from .errors import ServerError
from .names import CollectionName
from .placeholders import placeholder
from .rpc import common, messages
from .server import MilvusServer

_COUNT = "count(*)"


def count(server: MilvusServer, name: CollectionName, expression: str = "") -> int:
    """Return the number of rows that fulfil an expression, all rows without one.

    :raises ServerError: also for an expression that Milvus does not understand
    """
    request = messages().QueryRequest(
        db_name=name.database,
        collection_name=name.collection,
        expr=expression,
        output_fields=[_COUNT],
        consistency_level=common().ConsistencyLevel.Value("Strong"),
    )
    answer = server._call("Query", request, f"count rows of {name}", name.database)
    for field in answer.fields_data:
        if field.field_name == _COUNT or len(answer.fields_data) == 1:
            return int(field.scalars.long_data.data[0])
    raise ServerError(f"Milvus at {server.address} counted the rows of {name} and answered nothing; try again")


def search(server: MilvusServer, name: CollectionName, check: SearchCheck) -> list[int | str]:
    """Return the ids of the hits of a search, the nearest first.

    :raises ServerError: also for a filter or parameters that Milvus does not understand
    """
    kind, content = placeholder(check.data_type, check.vector)
    value = common().PlaceholderValue(tag="$0", type=kind, values=[content])
    request = messages().SearchRequest(
        db_name=name.database,
        collection_name=name.collection,
        dsl=check.filter,
        dsl_type=common().DslType.Value("BoolExprV1"),
        placeholder_group=common().PlaceholderGroup(placeholders=[value]).SerializeToString(),
        nq=1,
        consistency_level=common().ConsistencyLevel.Value("Strong"),
    )
    params = {"anns_field": check.field, "topk": str(check.limit), "params": json.dumps(dict(check.params)), "round_decimal": "-1"}
    for key, text in {**params, **({"metric_type": check.metric} if check.metric else {})}.items():
        request.search_params.add(key=key, value=text)
    ids = server._call("Search", request, f"search in {name}", name.database).results.ids
    return [*ids.int_id.data, *ids.str_id.data]
