"""Undoing a restore, and removing what restores that died have left.

Milvus 2.3 does not like a collection to be dropped while imports into it run: other imports then wait for a minute and more (measured on
2.3.5). So imports are given some time to end; what then cannot be dropped stays under its own name, and a later restore drops it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from . import layout
from .ends import Ends
from .errors import MilvusBackupError, NotInStorage, TakenOver
from .lease import holder
from .names import CollectionName, is_built_for, restore_of, short_id
from .patience import Patience
from .restore_state import RestoreState
from .state_store import StateStore

#: Seconds to wait for running imports to end before collections are dropped.
GRACE = 60.0
#: Age, in seconds, of staged objects without a lease that are taken for leftovers.
LEFTOVER = 24 * 3600.0


def lease_of(short: str) -> str:
    """Return the key, in Milvus's bucket, of the lease of the restore with this short id."""
    return layout.staging_dir(short) + "lease.json"


def undo(ends: Ends, states: StateStore, state: RestoreState, why: str, grace: float = GRACE) -> bool:
    """Drop the collections and databases that a restore created, and remove what it staged; returns whether it was this restore's to do.

    Nothing happens when another process has gone on with this restore. Never raises, for it mostly runs while another error does.

    :param why: what every later look at this restore is told
    :param grace: seconds to wait for running imports to end
    """
    if state.undone or state.summary:
        return False
    state.undone = why
    state.left += [target.building for target in state.targets if not target.append and not target.done]
    try:
        states.save(state)
    except TakenOver as error:
        ends.reporter.line(str(error))
        return False
    except MilvusBackupError as error:
        ends.reporter.warn(f"could not write down that restore {state.restore_id} is undone: {error}")
    complete(ends, states, state, grace)
    return True


def complete(ends: Ends, states: StateStore, state: RestoreState, grace: float = GRACE) -> None:
    """Do of an undoing that has begun what is not done yet. Never raises.

    :param grace: seconds to wait for running imports to end
    """
    # The run may have been stopped or be out of time; undoing has a time of its own.
    ends.be(Patience(timeout=grace + 20))
    _try(ends, "remove staged objects", lambda: remove_staged(ends, state, state.staging))
    until = time.monotonic() + grace
    _try(ends, "drop what was created", lambda: drop_left(ends, state, until))
    if not state.left:
        _try(ends, "drop the databases that were created", lambda: _drop_databases(ends, state))

    def write_down() -> None:
        states.save(state)
        if not (state.left or any(job.job_id for _, job in state.jobs())):
            states.forget(state)  # it has done nothing

    _try(ends, "write down what is left", write_down)


def _drop_databases(ends: Ends, state: RestoreState) -> None:
    used = {target.name.database for target in state.targets if target.done}
    there = ends.server.databases()
    for database in [database for database in state.databases if database not in used]:
        if database in there:
            ends.server.drop_database(database)
        state.databases.remove(database)


def drop_left(ends: Ends, state: RestoreState, until: float = 0.0) -> None:
    """Drop the collections that this restore has given up, as far as no import into them is running.

    :param until: moment of ``time.monotonic()`` until which to wait for running imports
    """
    for name in list(dict.fromkeys(state.left)):
        if ends.server.collection_id(name) is not None:
            while _is_busy(ends, name) and time.monotonic() < until:
                time.sleep(0.5)
            if _is_busy(ends, name):
                ends.reporter.warn(f"{name} stays for now, because imports into it still run; a later restore into its target drops it")
                continue
            ends.server.drop_collection(name)
        state.left = [other for other in state.left if other != name]


def _is_busy(ends: Ends, name: CollectionName) -> bool:
    return ends.door.running(name)


def remove_staged(ends: Ends, state: RestoreState, prefix: str) -> None:
    """Remove what this restore has staged in Milvus's bucket.

    :param prefix: its own objects, or those of all restores that ever had its id
    """
    if state.staged:
        keys = [item.key for item in ends.milvus_store.objects(prefix)]
        if keys:
            ends.reporter.line(f"removed {ends.milvus_store.delete(keys):,} staged objects")


def sweep(ends: Ends, state: RestoreState) -> None:
    """Remove what other restores of the same task, or into the same targets, have left. Never raises.

    Collections are dropped only where a lease that has run out proves that a restore of ours made them and no longer lives; staged
    objects also where there is no lease and they are a day old.
    """
    own = short_id(state.restore_id)

    def left_collections() -> Iterable[CollectionName]:
        for database in {target.name.database for target in state.targets} & set(ends.server.databases()):
            for collection in ends.server.collections(database):
                name = CollectionName(database, collection)
                same_task = restore_of(name)[:8] == own[:8]
                if restore_of(name) not in ("", own) and (same_task or any(is_built_for(name, target.name) for target in state.targets)):
                    yield name

    def look() -> None:
        for name in left_collections():
            if is_dead(ends, restore_of(name)) and not _is_busy(ends, name):
                ends.server.drop_collection(name)
                ends.reporter.line(f"dropped {name}, which a restore that died had left")
        for directory in ends.milvus_store.directories(""):
            short = directory.removeprefix(layout.STAGING)
            if directory.startswith(f"{layout.STAGING}{own[:8]}") and short != own and is_dead(ends, short, LEFTOVER):
                keys = [item.key for item in ends.milvus_store.objects(layout.staging_dir(short))]
                if not keys:
                    continue  # some stores go on listing a directory that is empty
                removed = ends.milvus_store.delete(keys)
                ends.reporter.line(f"removed {removed:,} objects, which a restore that died had left in {directory}/")

    _try(ends, "remove what earlier restores have left", look)


def is_dead(ends: Ends, short: str, age: float | None = None) -> bool:
    """Return whether the restore with this short id no longer lives; without a lease, whether its objects are that old."""
    key = lease_of(short)
    if ends.milvus_store.exists(key):
        return holder(ends.milvus_store, key) is None
    if age is None:
        return False
    try:
        return all(ends.milvus_store.age(item.key) >= age for item in ends.milvus_store.objects(layout.staging_dir(short)))
    except NotInStorage:
        return False


def what_is_left(state: RestoreState) -> str:
    """Return a sentence about what an undone restore has left behind."""
    if state.left:
        names = ", ".join(map(str, state.left[:5]))
        return f"Imports into {names} still run; a later restore drops {'it' if len(state.left) == 1 else 'them'}"
    kept = [f"{target.name} ({target.rows:,} rows of this restore)" for target in state.targets if target.append and target.rows]
    if kept:
        return f"Rows were already appended to {', '.join(kept[:5])}; they stay"
    return "What this restore had created was dropped again"


def _try(ends: Ends, doing: str, action: Callable[[], object]) -> None:
    try:
        action()
    except MilvusBackupError as error:
        ends.reporter.warn(f"could not {doing}: {error}")
