"""The checks that a user gives to a drill, and what each must find: pure functions.

A check is one of these, with the collection as it is called in the backup:

.. code-block:: python

    {"collection": "db.books", "expression": "year > 2000", "count": 123}  # or "min_count" and "max_count"
    {"collection": "books", "search": {"field": "vector", "vector": [0.1, 0.2], "limit": 10, "expect_ids": [7, 8]}}  # or "min_hits"

A search may also have a ``filter`` and ``params`` of the index (``{"ef": 64}``, say). ``expect_ids`` are ids that must be among the hits.
Whole numbers may be texts, ``"123"``, as a template renders them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from . import meta
from .errors import ConfigError
from .names import CollectionName, parse_selection, select
from .placeholders import VECTORS, placeholder

#: Hits of one search at most, as Milvus allows (``quotaAndLimits.limits.topK``).
MAX_LIMIT = 16_384
_COUNTS, _EXPECTED = ("count", "min_count", "max_count"), ("expect_ids", "min_hits")
_INT64, _VARCHAR = 5, 21
_WHOLE = re.compile(r"-?[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class CountCheck:
    """So many rows must fulfil an expression.

    :param low: at least so many
    :param high: at most so many; None is without a limit
    """

    collection: CollectionName
    expression: str
    low: int
    high: int | None

    @property
    def title(self) -> str:
        """What it is called in results."""
        return f"count of {self.expression}"

    @property
    def expected(self) -> str:
        """What it must find."""
        if self.high is None:
            return f"at least {self.low:,}"
        if self.low == self.high:
            return f"{self.low:,}"
        return f"{self.low:,} to {self.high:,}" if self.low else f"at most {self.high:,}"

    def judge(self, found: int) -> CheckResult:
        """Return the result for the rows that Milvus has counted."""
        ok = self.low <= found and (self.high is None or found <= self.high)
        return CheckResult(str(self.collection), self.title, ok, self.expected, f"{found:,}")


@dataclass(frozen=True, slots=True)
class SearchCheck:
    """A vector search must find these ids, or so many hits.

    :param data_type: number of the field's type in ``schemapb``
    :param vector: as it was given
    :param metric: metric of the field's index in the backup
    """

    collection: CollectionName
    field: str
    data_type: int
    vector: Any
    limit: int
    metric: str
    filter: str
    params: Mapping[str, Any]
    expect_ids: tuple[int | str, ...]
    min_hits: int

    @property
    def title(self) -> str:
        """What it is called in results."""
        return f"search in {self.field}{f' where {self.filter}' if self.filter else ''}"

    @property
    def expected(self) -> str:
        """What it must find."""
        parts = [f"ids {_few(self.expect_ids)}"] if self.expect_ids else []
        parts += [f"at least {self.min_hits:,} hits"] if self.min_hits else []
        return " and ".join(parts)

    def judge(self, found: Sequence[int | str]) -> CheckResult:
        """Return the result for the ids of the hits."""
        missing = [one for one in self.expect_ids if one not in found]
        told = f"{len(found):,} hits: {_few(found)}" + (f", without {_few(missing)}" if missing else "")
        return CheckResult(str(self.collection), self.title, not missing and len(found) >= self.min_hits, self.expected, told)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check has found, in the words of a log."""

    collection: str
    check: str
    ok: bool
    expected: str
    found: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.collection}: {self.check}: expected {self.expected}, found {self.found}"


def checked_names(checks: object, available: Sequence[CollectionName], database: str) -> list[CollectionName]:
    """Return the collections that checks are about; raises ConfigError for checks that name none of ``available``.

    :param database: of names without one
    """
    return list(dict.fromkeys(_collection(node, available, database) for node in _nodes(checks)))


def parse_checks(checks: object, collections: Mapping[CollectionName, meta.Collection], database: str) -> list[CountCheck | SearchCheck]:
    """Return the checks that a user has given.

    :param collections: what is drilled, as it is in the backup
    :param database: of names without one
    :raises ConfigError: a check is not of the form above, or asks for what the collection cannot have
    """
    found: list[CountCheck | SearchCheck] = []
    for node in _nodes(checks):
        name = _collection(node, list(collections), database)
        found.append(_search_check(node, collections[name]) if "search" in node.value else _count_check(node, name))
    return found


class _Given:
    """One dictionary that a user gave, and where it stands."""

    def __init__(self, value: object, where: str, known: Sequence[str]) -> None:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ConfigError(f"{where} {value!r} is not a dictionary with {', '.join(known)}")
        if unknown := sorted(value.keys() - set(known)):
            raise ConfigError(f"{where} has the unknown key {unknown[0]!r}; there are {', '.join(known)}")
        self.value: Mapping[str, Any] = value
        self.where = where

    def text(self, key: str, *, needed: bool = True) -> str:
        value = self.value.get(key, "")
        if not isinstance(value, str) or (needed and not value.strip()):
            raise ConfigError(f"{self.where}: {key} {value!r} is not a text")
        return value

    def number(self, key: str, low: int, high: int) -> int:
        value = whole(self.value[key])
        if value is None or not low <= value <= high:
            raise ConfigError(f"{self.where}: {key} {self.value[key]!r} is not a whole number from {low:,} to {high:,}")
        return value


def whole(value: object) -> int | None:
    """Return the whole number that a value is, also one in digits as a template renders it; None for anything else."""
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value)
    return value if type(value) is int else None


def _nodes(checks: object) -> list[_Given]:
    if checks is None:
        return []
    if isinstance(checks, (str, Mapping)) or not isinstance(checks, Sequence):
        raise ConfigError(f"checks {checks!r} is not a list of dictionaries; see the documentation of drill_checks for their form")
    keys = ("collection", "expression", *_COUNTS, "search")
    return [_Given(value, f"checks[{number}]", keys) for number, value in enumerate(checks)]


def _collection(node: _Given, available: Sequence[CollectionName], database: str) -> CollectionName:
    pattern = node.text("collection")
    if "*" in pattern or "," in pattern:
        raise ConfigError(f"{node.where}: collection {pattern!r} is not the name of one collection")
    try:
        (name,) = select(available, parse_selection(pattern), database)
    except ConfigError as error:
        raise ConfigError(f"{node.where}: {error}; a check is about a collection that is drilled, by its name in the backup") from None
    return name


def _count_check(node: _Given, name: CollectionName) -> CountCheck:
    expression, given = node.text("expression"), [key for key in _COUNTS if key in node.value]
    if not given or (given[0] == "count" and len(given) > 1):
        raise ConfigError(f"{node.where} expects {' and '.join(given) or 'nothing'}; give count, or min_count, max_count or both")
    numbers = {key: node.number(key, 0, 2**63 - 1) for key in given}
    low, high = numbers.get("count", numbers.get("min_count", 0)), numbers.get("count", numbers.get("max_count"))
    if high is not None and low > high:
        raise ConfigError(f"{node.where}: min_count {low:,} is more than max_count {high:,}")
    return CountCheck(name, expression, low, high)


def _search_check(node: _Given, collection: meta.Collection) -> SearchCheck:
    if extra := sorted(node.value.keys() - {"collection", "search"}):
        raise ConfigError(f"{node.where} has both search and {extra[0]}; make two checks of it")
    search = _Given(node.value["search"], f"{node.where}.search", ("field", "vector", "limit", "filter", "params", *_EXPECTED))
    limit = search.number("limit", 1, MAX_LIMIT) if "limit" in search.value else 10
    field = _vector_field(search, collection)
    metric = next((index.params.get("metric_type", "") for index in collection.indexes if index.field_name == field["name"]), None)
    if metric is None:
        raise ConfigError(f"{search.where}: {collection.name} has no index of {field['name']!r} in the backup, so it cannot be searched")
    ids = search.value.get("expect_ids", ())
    key = next(one for one in collection.schema["fields"] if one.get("is_primary_key"))
    kind = str if key.get("data_type") == _VARCHAR else int
    found = [whole(one) if kind is int else one for one in ids] if isinstance(ids, (list, tuple)) else None
    if found is None or not all(type(one) is kind for one in found) or len(found) > limit:
        raise ConfigError(f"{search.where}: expect_ids {ids!r} is not a list of at most {limit:,} {kind.__name__} values, as the limit is")
    hits = search.number("min_hits", 1, limit) if "min_hits" in search.value else 0
    if not ids and not hits:
        raise ConfigError(f"{search.where} expects nothing; give expect_ids or min_hits")
    params = search.value.get("params", {})
    try:
        json.dumps(params)
    except (TypeError, ValueError):
        params = None
    if not isinstance(params, Mapping):
        raise ConfigError(f"{search.where}: params {search.value['params']!r} is not a dictionary that JSON can hold, as {{'ef': 64}} is")
    made = SearchCheck(
        collection.name,
        field["name"],
        field["data_type"],
        search.value.get("vector"),
        limit,
        metric,
        search.text("filter", needed=False),
        params,
        tuple(one for one in found if one is not None),
        hits,
    )
    try:
        placeholder(made.data_type, made.vector, _dimension(field))
    except ValueError as error:
        raise ConfigError(f"{search.where}: vector for field {made.field!r} of {collection.name}: {error}") from None
    return made


def _vector_field(search: _Given, collection: meta.Collection) -> dict[str, Any]:
    name = search.text("field")
    vectors: dict[str, dict[str, Any]] = {
        field["name"]: field for field in collection.schema["fields"] if field.get("data_type") in VECTORS
    }
    if name not in vectors:
        raise ConfigError(f"{search.where}: {collection.name} has no vector field {name!r}; it has {', '.join(vectors) or 'none'}")
    return vectors[name]


def _dimension(field: Mapping[str, Any]) -> int:
    value = next((pair["value"] for pair in field.get("type_params", []) if pair["key"] == "dim"), "")
    return int(value) if value.isdecimal() else 0


def _few(values: Sequence[object]) -> str:
    return ", ".join(map(str, values[:5])) + (f" and {len(values) - 5:,} more" if len(values) > 5 else "") if values else "none"
