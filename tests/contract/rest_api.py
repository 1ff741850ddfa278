"""REST v2 as a function: path, headers and body in, status and JSON out.

``internal/distributed/proxy/httpserver/handler_v2.go`` (routes, wrapperPost, answers), ``request_v2.go`` (fields), ``handler.go`` (login).
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .accounts import Accounts
from .jobs import Job
from .model import Model
from .recording import Recorder
from .refusals import Refusal
from .state import DEFAULT_DATABASE, Segment

PREFIX = "/v2/vectordb/"
_INT64 = 2**63
_GO = {str: "string", int: "int64"}


class Answer(NamedTuple):
    """An HTTP status and a JSON document; no document is gin's page for what is not there."""

    status: int
    document: Any


class Field(NamedTuple):
    """One field of a request: how Go and JSON call it, its type, and whether it must be there.

    A type in a list stands for a list of it; ``dict`` is a map of strings.
    """

    go: str
    key: str
    kind: Any
    required: bool = False


_DATABASE = Field("DbName", "dbName", str)
_COLLECTION = Field("CollectionName", "collectionName", str)
_JOB = ("JobIDReq", (Field("JobID", "jobId", str, required=True),))
_CREATE = (
    "ImportReq",
    (
        _DATABASE,
        _COLLECTION._replace(required=True),
        Field("PartitionName", "partitionName", str),
        Field("Files", "files", [[str]], required=True),
        Field("Options", "options", dict),
    ),
)
_LIST = ("OptionalCollectionNameReq", (_DATABASE, _COLLECTION))
_SEGMENTS = (
    "GetSegmentsInfoReq",
    (_DATABASE, Field("CollectionID", "collectionID", int, required=True), Field("SegmentIDs", "segmentIDs", [int], required=True)),
)


class RestApi:
    """The routes of one version."""

    def __init__(self, model: Model, recorder: Recorder, accounts: Accounts) -> None:
        self.model, self.recorder, self.accounts = model, recorder, accounts
        profile = model.profile
        self.routes: dict[str, tuple[Any, Callable[[dict[str, Any], str], Any]]] = {
            "jobs/import/create": (_CREATE, self._create),
            "jobs/import/get_progress": (_JOB, self._describe),
            "jobs/import/list": (_LIST, self._list),
        }
        if profile.import_describe:
            self.routes["jobs/import/describe"] = (_JOB, self._describe)
        if profile.two_phase:
            self.routes["jobs/import/commit"] = (_JOB, self._commit)
            self.routes["jobs/import/abort"] = (_JOB, self._abort)
        if profile.segments_describe:
            self.routes["segments/describe"] = (_SEGMENTS, self._segments)

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer a POST. Headers are looked up by lower-case names.

        :raises ConnectionResetError: when there shall be no answer
        """
        route = path.removeprefix(PREFIX)
        try:
            self.recorder.note(route, _decoded(body), headers)
            if route == path or route not in self.routes:
                return Answer(404, None)
            if not self.accounts.admits_rest(headers.get("authorization")):
                return Answer(401, {"code": 1800, "message": "user hasn't authenticated"})
            (struct, fields), handler = self.routes[route]
            request = bound(struct, fields, body)
            database = request.get("dbName") or headers.get("db-name") or DEFAULT_DATABASE
            if denial := self.accounts.denial(route, headers.get("authorization"), database):
                return Answer(403, {"code": 65535, "message": f"rpc error: code = PermissionDenied desc = {denial}"})
            with self.model.lock:
                if database not in self.model.databases:
                    raise Refusal(800, f"database not found, database: {database}")
                return Answer(200, {"code": 0, "data": handler(request, database)})
        except Refusal as refusal:
            return Answer(200, {"code": refusal.code, "message": refusal.reason})

    # ---- import jobs -------------------------------------------------------------------------------------------------------

    def _create(self, request: dict[str, Any], database: str) -> Any:
        name, options = (database, request["collectionName"]), request.get("options") or {}
        job = self.model.import_job(name, request["files"], options, request.get("partitionName", ""))
        if job.fate.lose_answer:
            raise ConnectionResetError
        return {"jobId": str(job.id)}

    def _job(self, request: dict[str, Any]) -> Job:
        text = request["jobId"]
        if not text.lstrip("-").isdigit():
            raise Refusal(2100, f'parse job id failed, err=strconv.ParseInt: parsing "{text}": invalid syntax: importing data failed')
        return self.model.job(int(text))

    def _describe(self, request: dict[str, Any], database: str) -> Any:
        job = self._job(request)
        seen = self.model.progress(job)
        ended = _time(job.ended and self.model.clock())
        details = []
        for file in job.files:
            rows = job.imported_by.get(file.name, 0) if seen.imported else 0
            detail = {"fileName": file.name, "fileSize": 0, "progress": seen.progress, "completeTime": ended, "state": seen.state}
            details.append({**detail, "importedRows": rows, "totalRows": rows, **({"reason": seen.reason} if seen.reason else {})})
        answer = {
            "jobId": str(job.id),
            "collectionName": job.collection[1],
            "completeTime": ended,
            "state": seen.state,
            "progress": seen.progress,
            "importedRows": seen.imported,
            "totalRows": seen.imported,
            "fileSize": 0,
            # Of import tasks, which there are when all files were looked at (internal/datacoord/import_util.go, GetTaskProgresses).
            "details": details if job.phase > 1 else [],
        }
        if self.model.profile.create_time:
            answer["createTime"] = _time(job.created)
        if seen.reason:
            answer["reason"] = seen.reason
        return answer

    def _list(self, request: dict[str, Any], database: str) -> Any:
        name = request.get("collectionName", "")
        records = []
        for job in self.model.jobs_of((database, name) if name else None):
            seen = self.model.progress(job)
            record = {"jobId": str(job.id), "collectionName": job.collection[1], "state": seen.state, "progress": seen.progress}
            records.append({**record, **({"reason": seen.reason} if seen.reason else {})})
        return {"records": records}

    def _commit(self, request: dict[str, Any], database: str) -> Any:
        self.model.commit_job(self._job(request).id)
        return {}

    def _abort(self, request: dict[str, Any], database: str) -> Any:
        self.model.abort_job(self._job(request).id)
        return {}

    # ---- segments ----------------------------------------------------------------------------------------------------------

    def _segments(self, request: dict[str, Any], database: str) -> Any:
        # The collection's id is not looked at (internal/proxy/impl.go, GetSegmentsInfo).
        return {"segmentInfos": [self._segment(number) for number in request["segmentIDs"]]}

    def _segment(self, number: int) -> Any:
        collection, segment = self.model.segment(number)
        deltas = self.model.described_delta_logs(collection, segment)
        return {
            "segmentID": segment.id,
            "collectionID": collection.id,
            "partitionID": segment.partition_id,
            "vChannel": segment.vchannel,
            "numRows": len(segment.rows),
            "state": segment.state,
            "level": segment.level,
            "isSorted": segment.sorted,
            "insertLogs": _logs(segment),
            "deltaLogs": [{"fieldID": 0, "logIDs": deltas}] if deltas else [],
            "statsLogs": [],
        }


def _logs(segment: Segment) -> list[dict[str, Any]]:
    return [{"fieldID": directory, "logIDs": logs} for directory, logs in segment.insert_logs.items()]


def _time(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else ""


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body


# ---- binding -----------------------------------------------------------------------------------------------------------------------


def bound(struct: str, fields: tuple[Field, ...], body: bytes) -> dict[str, Any]:
    """Return a request's fields as gin binds them: keys in any case, types exact, unknown keys ignored; raises Refusal 1801 or 1802."""
    if not body:
        raise Refusal(1801, "can only accept json format request, the request body should be nil, however {} is valid")
    try:
        document = json.loads(body)
    except ValueError as error:
        raise Refusal(1801, f"can only accept json format request, error: {error}") from None
    if not isinstance(document, dict):
        raise _wrong_type(struct, "", document, struct)
    given = {key.lower(): value for key, value in document.items()}
    request = {}
    for field in fields:
        value = given.get(field.key.lower())
        if value is not None:
            _check(struct, field, value, field.kind)
            request[field.key] = value
    for field in fields:
        if field.required and request.get(field.key) in (None, "", 0):
            raise Refusal(
                1802,
                f"missing required parameters, error: Key: '{struct}.{field.go}' Error:Field validation for '{field.go}' "
                "failed on the 'required' tag",
            )
    return request


def _check(struct: str, field: Field, value: Any, kind: Any) -> None:
    if isinstance(kind, list):
        if not isinstance(value, list):
            raise _wrong_type(struct, field.key, value, "[]" + _GO.get(kind[0], "[]string"))
        for item in value:
            _check(struct, field, item, kind[0])
    elif kind is dict:
        if not isinstance(value, dict):
            raise _wrong_type(struct, field.key, value, "map[string]string")
        for item in value.values():
            if not isinstance(item, str):
                raise _wrong_type(struct, field.key, item, "string")
    elif kind is int:
        if isinstance(value, bool) or not isinstance(value, int) or not -_INT64 <= value < _INT64:
            raise _wrong_type(struct, field.key, value, "int64")
    elif not isinstance(value, str):
        raise _wrong_type(struct, field.key, value, "string")


def _wrong_type(struct: str, key: str, value: Any, kind: str) -> Refusal:
    names = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    found = names.get(type(value), "null")
    return Refusal(
        1801,
        f"can only accept json format request, error: json: cannot unmarshal {found} into Go struct field {struct}.{key} of type {kind}",
    )
