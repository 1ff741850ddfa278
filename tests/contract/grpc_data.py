# ruff: noqa: N802 (methods are named as the RPCs are)
"""RPCs about rows: segments, flushes, compactions, imports."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from pymilvus.grpc_gen import common_pb2, milvus_pb2

from .jobs import COMPLETED, FAILED, Job
from .refusals import Refusal, invalid, unexpected
from .rpcs import Base, named, pairs, rpc
from .state import L0, PHYSICAL_CHANNELS, Collection

_GREATEST_36 = 36
_PENDING, _STARTED, _COMPLETED, _FAILED = 0, 2, 6, 1
#: proxy.GetImportState -> importutilv2: what is in no table counts as failed (``internal/proxy/util.go``, ConvertToImportState).
_STATES = {"Pending": _PENDING, "Importing": _STARTED, COMPLETED: _COMPLETED, FAILED: _FAILED}


class DataRpcs(Base):
    """Segments, flushes, compactions, imports."""

    @rpc(milvus_pb2.GetPersistentSegmentInfoResponse)
    def GetPersistentSegmentInfo(self, request: Any, database: str) -> Any:
        profile, answer = self.model.profile, milvus_pb2.GetPersistentSegmentInfoResponse()
        collection = self.model.collection((database, request.collectionName))
        listed = self.model.listed((database, request.collectionName))
        for segment in random.sample(listed, len(listed)):  # Go's maps have no order, so neither has the answer
            info = answer.infos.add(
                segmentID=segment.id,
                collectionID=collection.id,
                partitionID=segment.partition_id,
                num_rows=len(segment.rows),
                state=segment.state,
            )
            if profile.lists_level:
                info.level = segment.level
            if profile.lists_sorted:
                info.is_sorted = segment.sorted
            if profile.lists_storage_version:
                info.storage_version = segment.storage_version
        return answer

    @rpc(milvus_pb2.QueryResults)
    def Query(self, request: Any, database: str) -> Any:
        """Count all rows of what is loaded; there is no language of expressions here."""
        collection = self.model.collection(named(request, database))
        if list(request.output_fields) != ["count(*)"] or request.expr:
            raise invalid(f"cannot parse expression: {request.expr}")
        if not collection.loaded:
            raise Refusal(101, f"collection not loaded[collection={collection.id}]")
        loaded = {partition.name for partition in collection.partitions if partition.id in collection.loaded}
        count = sum(1 for partition, _ in self.model.live(named(request, database)) if partition in loaded)
        answer = milvus_pb2.QueryResults(collection_name=request.collection_name)
        answer.fields_data.add(type=5, field_name="count(*)").scalars.long_data.data.append(count)
        return answer

    # ---- flushing ----------------------------------------------------------------------------------------------------------

    @rpc(milvus_pb2.FlushResponse)
    def Flush(self, request: Any, database: str) -> Any:
        collections = [self.model.collection((database, name)) for name in request.collection_names]
        if not collections:
            raise invalid("collection name can not be empty")
        for collection in collections:
            self.limit_flush(collection.id)
        answer = milvus_pb2.FlushResponse(db_name=database)
        for name, collection in zip(request.collection_names, collections, strict=True):
            checkpoint = collection.checkpoint  # read before anything is sealed: earlier than flush_ts
            flushed = [segment.id for segment in self.model.listed(collection.full_name)]
            pending = self.model.begin_flush(collection.full_name)
            answer.coll_segIDs[name].data.extend(segment.id for segment in pending.segments if segment.level != L0)
            answer.flush_coll_segIDs[name].data.extend(flushed)
            answer.coll_flush_ts[name] = pending.flush_ts
            answer.coll_seal_times[name] = int(self.model.clock())
            if self.model.profile.channel_cps:
                if self.model.profile.storage_version > 1:
                    answer.channel_cps.clear()  # of several collections only the last one's survive (task_flush_streaming.go)
                for channel in collection.vchannels:
                    position = answer.channel_cps[channel]
                    position.channel_name, position.timestamp, position.msgID = channel, checkpoint, checkpoint.to_bytes(8, "little")
        return answer

    @rpc(milvus_pb2.GetFlushStateResponse)
    def GetFlushState(self, request: Any, database: str) -> Any:
        if not request.collection_name and not request.flush_ts and not request.segmentIDs:
            return milvus_pb2.GetFlushStateResponse(flushed=True)
        flushed = self.model.flushed(named(request, database), list(request.segmentIDs), request.flush_ts)
        return milvus_pb2.GetFlushStateResponse(flushed=flushed)

    @rpc(milvus_pb2.FlushAllResponse)
    def FlushAll(self, request: Any, database: str) -> Any:
        for collection in self._collections():
            self.model.begin_flush(collection.full_name)
        ts = self.model.next_ts()
        for collection in self._collections():
            # An empty flush whose checkpoint is late enough for all channels.
            collection.pending[-1].flush_ts = ts
        if not self.model.profile.flush_all_messages:
            return milvus_pb2.FlushAllResponse(flush_all_ts=ts)
        channels = [f"by-dev-rootcoord-dml_{i}" for i in range(PHYSICAL_CHANNELS)]
        answer = milvus_pb2.FlushAllResponse(
            cluster_info=milvus_pb2.ClusterInfo(cluster_id="by-dev", cchannel=f"{channels[0]}_vcchan", pchannels=channels)
        )
        for channel in channels:
            answer.flush_all_msgs[channel].properties["_tt"] = base36(ts)
        return answer

    @rpc(milvus_pb2.GetFlushAllStateResponse)
    def GetFlushAllState(self, request: Any, database: str) -> Any:
        done = True
        if self.model.profile.flush_all_messages and not request.flush_all_tss and not request.flush_all_ts:
            raise invalid("FlushAllTss or FlushAllTs is required")
        for collection in self._collections():
            self.model.listed(collection.full_name)
            for channel in collection.vchannels:
                ts = request.flush_all_ts
                if self.model.profile.flush_all_messages and request.flush_all_tss:
                    ts = request.flush_all_tss.get(channel.rpartition("_")[0], 0)
                    if not ts:
                        raise invalid(f"FlushAllTs not found for pchannel {channel.rpartition('_')[0]}")
                done = done and collection.checkpoint >= ts
        return milvus_pb2.GetFlushAllStateResponse(flushed=done)

    def _collections(self) -> list[Collection]:
        return [c for database in self.model.databases.values() for c in database.collections.values()]

    @rpc(milvus_pb2.ManualCompactionResponse)
    def ManualCompaction(self, request: Any, database: str) -> Any:
        by_id = self.model.collection_by_id(request.collectionID)
        name = by_id.full_name if by_id and not request.collection_name else named(request, database)
        if request.l0Compaction and self.model.profile.l0_compaction:
            self.model.compact_l0(name)
        else:
            self.model.compact(name)
        return milvus_pb2.ManualCompactionResponse(compactionID=self.model.next_id(), compactionPlanCount=1)

    @rpc(milvus_pb2.GetCompactionStateResponse)
    def GetCompactionState(self, request: Any, database: str) -> Any:
        return milvus_pb2.GetCompactionStateResponse(state=common_pb2.CompactionState.Value("Completed"))

    # ---- importing: an adapter of the engine that REST uses (internal/proxy/impl.go, convertToV2ImportRequest) -----------------

    @rpc(milvus_pb2.ImportResponse)
    def Import(self, request: Any, database: str) -> Any:
        # All files of one request are ONE pair, whatever their number.
        job = self.model.import_job(named(request, database), [list(request.files)], pairs(request.options), request.partition_name)
        if job.fate.lose_answer:
            raise ConnectionResetError
        return milvus_pb2.ImportResponse(tasks=[job.id])

    @rpc(milvus_pb2.GetImportStateResponse)
    def GetImportState(self, request: Any, database: str) -> Any:
        return self._state(self.model.job(request.task))

    @rpc(milvus_pb2.ListImportTasksResponse)
    def ListImportTasks(self, request: Any, database: str) -> Any:
        name = named(request, database) if request.collection_name else None
        return milvus_pb2.ListImportTasksResponse(
            tasks=[self._state(job) for job in self._limited(self.model.jobs_of(name), request.limit)]
        )

    @staticmethod
    def _limited(jobs: list[Job], limit: int) -> Iterable[Job]:
        return jobs[:limit] if limit > 0 else jobs

    def _state(self, job: Job) -> Any:
        """Return what is left of a job over gRPC: no id, no collection, no segments."""
        seen = self.model.progress(job)
        answer = milvus_pb2.GetImportStateResponse(state=_STATES.get(seen.state, _FAILED), row_count=seen.imported)
        answer.infos.add(key="failed_reason", value=seen.reason)
        answer.infos.add(key="progress_percent", value=str(seen.progress))
        return answer


def base36(value: int) -> str:
    """Return a number as a message's properties say it (``pkg/streaming/util/message``, EncodeUint64)."""
    if value < 0:
        raise unexpected(f"{value} is no uint64")
    digits = ""
    while value:
        value, digit = divmod(value, _GREATEST_36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits or "0"
