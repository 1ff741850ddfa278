"""Making everything written so far durable before a backup looks at the segments.

What is consistent with what: after a flush of each collection by itself, every collection holds all that was written before its own flush
began, and collections differ by the moments between their flushes. After a flush of everything (2.6.11 and later) all collections hold
what was written before one moment. Either way later rows may have come along, flushed by somebody else meanwhile.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence

from google.protobuf.message import DecodeError

from . import meta
from .capabilities import Capability, first_release
from .errors import ServerError, UnsupportedServer
from .names import CollectionName
from .patience import Patience
from .report import Reporter, counted, duration
from .rpc import common
from .server import Flushed, MilvusServer

#: The property of a message that is its timestamp, as a number to the base 36 (``pkg/streaming/util/message`` of Milvus).
_TIME_TICK = "_tt"


def flush_each(
    server: MilvusServer, collections: Sequence[CollectionName], reporter: Reporter, patience: Patience
) -> dict[CollectionName, Flushed]:
    """Flush collections one by one, wait until all are durable, and return what Milvus says about each.

    Also where Milvus names no segments: there may be deletes to write, and only the timestamp tells when that is done.
    """
    started = time.monotonic()
    flushed = {collection: server.flush(collection) for collection in collections}
    waiting, pause = dict(flushed), 0.1
    while waiting := {c: f for c, f in waiting.items() if not server.flush_done(c, f)}:
        patience.pause(pause, f"Milvus was flushing {', '.join(map(str, list(waiting)[:5]))}; a retry begins with the flush again")
        pause = min(1.0, pause * 1.3)
        reporter.progress(f"waiting for Milvus to flush {len(waiting)} of {counted(len(collections), 'collection')}")
    reporter.line(f"flushed {counted(len(collections), 'collection')} in {duration(time.monotonic() - started)}")
    return flushed


def check_flush_all(server: MilvusServer) -> None:
    """Raise UnsupportedServer where Milvus cannot flush everything at one point in time."""
    if not server.can(Capability.FLUSH_ALL):
        raise UnsupportedServer(
            f"strategy 'flush_all' needs Milvus {first_release(Capability.FLUSH_ALL)} or newer, and Milvus at {server.address} is version "
            f"{server.version}; use strategy 'flush', which flushes each collection by itself"
        )


def flush_everything(server: MilvusServer, reporter: Reporter, patience: Patience) -> meta.FlushAll:
    """Flush all collections of the cluster at one point in time, wait until all are durable, and return that point.

    :raises UnsupportedServer: the installed pymilvus is too old for it
    """
    started = time.monotonic()
    answer = server.flush_all()
    marks: Mapping[str, object] = getattr(answer, "flush_all_msgs", {})
    if not marks:
        raise UnsupportedServer(
            f"Milvus {server.version} did not say where its flush of everything ends, or the installed pymilvus is too old to see it; "
            "use strategy 'flush', or install pymilvus 3"
        )
    times, pause = {channel: time_tick(message) for channel, message in marks.items()}, 0.1
    while not server.flush_all_done(times):
        patience.pause(pause, "Milvus was flushing all collections; a retry begins with the flush again")
        pause = min(1.0, pause * 1.3)
        reporter.progress("waiting for Milvus to flush all collections")
    reporter.line(f"flushed all collections in {duration(time.monotonic() - started)}")
    return meta.FlushAll(
        {channel: base64.b64encode(message.SerializeToString()).decode() for channel, message in answer.flush_all_msgs.items()},
        answer.cluster_info.cchannel,
        list(answer.cluster_info.pchannels),
    )


def time_tick(message: object) -> int:
    """Return the hybrid timestamp of a ``commonpb.ImmutableMessage``.

    :raises ServerError: it has none
    """
    properties: Mapping[str, str] = getattr(message, "properties", {})
    try:
        return int(properties[_TIME_TICK], 36)
    except (KeyError, ValueError):
        raise ServerError("Milvus marked the end of its flush of everything with a message that has no timestamp; try again") from None


def point_in_time(flushed: meta.FlushAll) -> int:
    """Return the latest hybrid timestamp up to which everything is durable in all channels; 0 when the messages do not say."""
    try:
        return min(time_tick(common().ImmutableMessage.FromString(base64.b64decode(mark))) for mark in flushed.messages.values())
    except (ValueError, DecodeError, ServerError):
        return 0
