"""The two doors to Milvus's imports: gRPC, and from 2.4 REST.

Both lead to the same jobs. Over REST one job takes many segments, and a list shows the ids of jobs; over gRPC a job of 2.4 and later takes
one segment, so that door is only taken where REST cannot be reached.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from . import imports, rest
from .capabilities import Capability
from .errors import AuthError, ServerError, ServerUnreachable, UnsupportedServer
from .imports import JobState, JobStatus
from .names import CollectionName
from .report import Reporter
from .server import MilvusServer

#: Seconds to wait for Milvus to say what a job imports; it does when it has looked at all files of the job, which lie in its queue before.
_DETAILS_SECONDS = 600.0
#: More jobs than these into one collection are asked for with one list first.
_FEW = 8

#: The paths of each import file: the prefix of a segment's insert binlogs and, where it has some, that of its delta logs.
Files = Sequence[Sequence[str]]


class Door(Protocol):
    """Submits import jobs and asks for them."""

    #: Segments that one job takes at most; 0 where it takes all below one prefix.
    per_job: int

    def submit(self, name: CollectionName, partition: str, files: Files, options: Mapping[str, str]) -> int:
        """Start a job and return its id.

        :raises ServerUnreachable: also where the answer was lost; the job may then be running, and :meth:`find` finds it
        """

    def status(self, job_id: int, database: str) -> JobStatus:
        """Ask for one job."""

    def statuses(self, name: CollectionName, job_ids: Sequence[int]) -> Iterator[JobStatus]:
        """Iterate over what became of jobs into one collection."""

    def running(self, name: CollectionName) -> bool:
        """Return whether any job works on a collection."""

    def ids(self, name: CollectionName) -> list[int]:
        """Return the ids of all jobs into a collection that Milvus keeps a record of; those it does not tell are negative numbers."""

    def find(self, name: CollectionName, wanted: Mapping[str, Files], known: set[int]) -> dict[str, int]:
        """Return the ids of jobs that were submitted though nobody got the answer, by their tag; a failed job is as good as none.

        :param wanted: what the jobs without an id import, by tag
        :param known: ids of jobs that are none of these, and have not failed
        :raises ServerError: there are jobs that may be these, and Milvus does not say; it may in a moment
        """


def open_door(server: MilvusServer, reporter: Reporter | None = None) -> Door:
    """Return the door to take.

    :param reporter: where to say that it is not the best one, for whoever is going to submit jobs
    """
    if not server.can(Capability.REST_IMPORT):
        return GrpcDoor(server)
    door = RestDoor(server)
    try:
        server.rest.call(rest.LIST, {}, "list import jobs", server.address.database, seconds=10)
    except (ServerUnreachable, UnsupportedServer) as error:
        server.capabilities.learn(Capability.REST_IMPORT, works=False)
        if reporter:
            reporter.warn(
                f"import jobs go over gRPC, one segment each, because REST cannot be reached: {error}. Set rest_endpoint of the connection "
                "if it is elsewhere, or enable proxy.http in Milvus"
            )
        return GrpcDoor(server)
    except ServerError:
        pass  # it answers; listing all databases may need a privilege that nothing else needs
    return door


class GrpcDoor:
    """Imports over gRPC."""

    def __init__(self, server: MilvusServer) -> None:
        self.server = server
        self.per_job = 1 if server.can(Capability.IMPORT_V2) else 0

    def submit(self, name: CollectionName, partition: str, files: Files, options: Mapping[str, str]) -> int:
        """Start a job; it takes one import file."""
        if len(files) > 1:
            raise ServerError(
                f"a job of {len(files)} segments into {name} was planned when REST could be reached, and is taken only over REST; let "
                "REST be reached again (rest_endpoint of the connection), or begin another restore"
            )
        (paths,) = files
        return self.server.submit_import(name, partition, paths, options)

    def status(self, job_id: int, database: str) -> JobStatus:  # noqa: ARG002 (gRPC does not ask for it)
        """Ask for one job."""
        try:
            return imports.of_grpc(job_id, self.server.import_state(job_id))
        except ServerError as error:
            return imports.lost(job_id, error)

    def statuses(self, name: CollectionName, job_ids: Sequence[int]) -> Iterator[JobStatus]:
        """Ask for one job after the other."""
        return (self.status(job_id, name.database) for job_id in job_ids)

    def running(self, name: CollectionName) -> bool:
        """Return whether any job works on a collection."""
        return any(imports.of_grpc(job.id, job).state is JobState.RUNNING for job in self.server.imports(name))

    def ids(self, name: CollectionName) -> list[int]:
        """Return the ids of all jobs into a collection; from 2.4 on they are not told, and negative numbers stand for them."""
        return [int(job.id) or -number for number, job in enumerate(self._listed(name), 1)]

    def _listed(self, name: CollectionName) -> list[Any]:
        """Return all jobs into a collection but those that failed, which have brought no rows."""
        return [job for job in self.server.imports(name) if imports.of_grpc(job.id, job).state is not JobState.FAILED]

    def find(self, name: CollectionName, wanted: Mapping[str, Files], known: set[int]) -> dict[str, int]:
        """Return the jobs by the tag among their options; from 2.4 on a list only says how many there are."""
        listed = self._listed(name)
        if self.per_job == 0:
            tags = imports.tagged(listed)
            return {tag: tags[tag] for tag in wanted if tag in tags}
        if wanted and len(listed) > (recorded := self._recorded(known, len(listed))):
            raise ServerError(
                f"Milvus has {len(listed)} import jobs into {name}, {recorded} of which are known, and does not say over gRPC what the "
                "others import; let it be reached over REST (rest_endpoint of the connection)"
            )
        return {}

    def _recorded(self, known: set[int], enough: int) -> int:
        """Return how many of these jobs Milvus keeps a record of, for it forgets those that have ended; counted up to ``enough``.

        Those that it does not tell cannot be asked for, and count.
        """
        count = sum(1 for job_id in known if job_id < 0)
        for job_id in sorted((job_id for job_id in known if job_id > 0), reverse=True):  # the newest are the most likely to be there
            if count >= enough:
                break
            count += self.status(job_id, "").state is not JobState.UNKNOWN
        return count


class RestDoor:
    """Imports over REST."""

    per_job = 256

    def __init__(self, server: MilvusServer) -> None:
        self.server = server

    def submit(self, name: CollectionName, partition: str, files: Files, options: Mapping[str, str]) -> int:
        """Start a job."""
        body: dict[str, Any] = {"dbName": name.database, "collectionName": name.collection, "files": [list(paths) for paths in files]}
        if partition:
            body["partitionName"] = partition
        body["options"] = dict(options)
        doing, seconds = f"import into {name}", rest.REQUEST_SECONDS
        data = self.server.rest.call(rest.CREATE, body, doing, name.database, once=True, seconds=seconds)
        try:
            return int(data["jobId"])
        except (KeyError, TypeError, ValueError):
            raise ServerError(f"Milvus at {self.server.address} accepted an import into {name} and named no job: {data}") from None

    def status(self, job_id: int, database: str) -> JobStatus:
        """Ask for one job."""
        try:
            return imports.of_rest(job_id, self._describe(job_id, database))
        except ServerError as error:
            return imports.lost(job_id, error)

    def statuses(self, name: CollectionName, job_ids: Sequence[int]) -> Iterator[JobStatus]:
        """Ask for the jobs that a list does not show as running; it does not tell how many rows came, nor of all jobs to all users."""
        listed: dict[int, JobStatus] = {}
        if len(job_ids) > _FEW:
            with contextlib.suppress(AuthError):
                listed = {status.job_id: status for status in self._listed(name)}
        for job_id in job_ids:
            running = job_id in listed and listed[job_id].state is JobState.RUNNING
            yield listed[job_id] if running else self.status(job_id, name.database)

    def _describe(self, job_id: int, database: str) -> dict[str, Any]:
        return self.server.rest.describe_job(job_id, database)

    def running(self, name: CollectionName) -> bool:
        """Return whether any job works on a collection."""
        return any(status.state is JobState.RUNNING for status in self._listed(name))

    def ids(self, name: CollectionName) -> list[int]:
        """Return the ids of all jobs into a collection."""
        return [status.job_id for status in self._listed(name)]

    def _listed(self, name: CollectionName) -> list[JobStatus]:
        body = {"dbName": name.database, "collectionName": name.collection}
        try:
            data = self.server.rest.call(rest.LIST, body, f"list import jobs of {name}", name.database)
        except ServerError as error:
            if self.server.not_found(error):
                return []
            raise
        return imports.of_list(data)

    def find(self, name: CollectionName, wanted: Mapping[str, Files], known: set[int]) -> dict[str, int]:
        """Return the jobs by what they import, which Milvus tells of every job whose files it has looked at."""
        found: dict[str, int] = {}
        listed = self._listed(name) if wanted else []
        strangers = [status for status in listed if status.job_id not in known and status.state is not JobState.FAILED]
        pause, waited = 0.1, 0.0
        while strangers:
            unclear = []
            for status in strangers:
                data = self._describe(status.job_id, name.database)
                state = imports.of_rest(status.job_id, data).state
                if state is JobState.FAILED:
                    continue
                paths = _paths(data)
                tag = next(
                    (tag for tag, files in wanted.items() if any(path.startswith(file[0]) for file in files for path in paths)), None
                )
                if tag:
                    found[tag] = status.job_id
                elif not paths and state is JobState.RUNNING:
                    unclear.append(status)
            if unclear and waited > _DETAILS_SECONDS:
                ids = [status.job_id for status in unclear]
                raise ServerError(f"Milvus does not say yet what its import jobs {ids} into {name} import; they may be of this restore")
            if unclear:
                self.server.patience.pause(pause, f"Milvus was asked which of its import jobs into {name} are of this restore")
                waited, pause = waited + pause, min(2.0, pause * 1.5)
            strangers = unclear
        return found


def _paths(data: Mapping[str, Any]) -> list[str]:
    """Return the paths that a job reads, as far as Milvus tells: those of a segment are one text, ``[insert delta]``."""
    return [path for detail in data.get("details") or [] for path in str(detail.get("fileName", "")).strip("[]").split()]
