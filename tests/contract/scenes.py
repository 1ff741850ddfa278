"""Models with something in them, for tests of the contract servers themselves."""

from __future__ import annotations

from typing import Any

from . import shapes
from .buckets import MemoryBucket
from .jobs import Progress
from .model import Model
from .profiles import PROFILES
from .state import L0, Collection, Segment

SOURCE, TARGET = ("default", "source"), ("default", "target")
BEFORE_3 = [name for name, profile in PROFILES.items() if not profile.l0_disabled]


class Clock:
    """A clock that stands still until it is moved; one Milvus of a test has it for both kinds of time."""

    def __init__(self) -> None:
        self.now = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now

    def tick(self) -> None:
        """Let a second pass."""
        self.now += 1


def made(version: str, **options: Any) -> Model:
    """Return an empty model with its bucket in memory."""
    return Model(PROFILES[version], MemoryBucket(), **options)


def filled(version: str, *, shards: int = 2, dynamic: bool = False) -> tuple[Model, Collection]:
    """A model with a collection of ten flushed rows, in two channels and several logs."""
    model = made(version)
    model.rows_per_log = 2
    collection = model.create_collection(SOURCE, shapes.schema("source", dynamic=dynamic), shards=shards)
    model.insert(SOURCE, [shapes.row(number) for number in range(10)])
    model.flush(SOURCE)
    return model, collection


def dirs(collection: Collection, partition: int | None = None) -> list[str]:
    """Return the prefixes of the insert and the delta logs of a partition, the first one unless another is named."""
    number = collection.partitions[0].id if partition is None else partition
    return [f"files/{kind}/{collection.id}/{number}/" for kind in ("insert_log", "delta_log")]


def options(model: Model, **more: str) -> dict[str, str]:
    """Return the options of a data import into a model of the same version."""
    return {"backup": "true", "storage_version": str(model.profile.storage_version), **more}


def done(model: Model, files: list[list[str]], name: tuple[str, str] = TARGET, partition: str = "_default", **more: str) -> Progress:
    """Import and return how the job ended."""
    job = model.import_job(name, files, options(model, **more), partition)
    model.finish_jobs()
    return model.progress(model.job(job.id))


def l0_of(model: Model) -> list[Segment]:
    """Return the L0 segments of the source."""
    return [segment for segment in model.listed(SOURCE) if segment.level == L0]
