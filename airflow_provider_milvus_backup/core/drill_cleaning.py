"""Throwing away what drills have restored: one's own, always, and what drills that died have left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from . import layout, undoing
from .ends import Ends
from .errors import MilvusBackupError, TakenOver
from .lease import Owner
from .names import short_id
from .patience import Patience
from .report import Reporter
from .restore import RestoreRun
from .restore_state import RestoreState
from .settings import Settings
from .state_store import StateStore
from .store import ObjectStore

#: Stands where a backup name is needed to look for a state that lies in Milvus's bucket, where it does not matter.
_ANY = "any"


class DrillStates(StateStore):
    """Keeps the states of drills in Milvus's bucket alone: a drill leaves nothing in a backup, and the next try may choose another one."""

    def _places(self, backup_name: str, restore_id: str) -> dict[str, tuple[ObjectStore, str]]:
        places = super()._places(backup_name, restore_id)
        return {place: found for place, found in places.items() if found[0] is self.milvus_store}


@contextlib.contextmanager
def clean(run: RestoreRun) -> Iterator[None]:
    """Throw away what ``run`` has restored inside, whatever happens there."""
    grace = undoing.GRACE
    try:
        yield
    except BaseException:
        grace = 2  # it may have been killed, and has little time
        raise
    finally:
        with run.ends.reporter.phase("Clean up"):
            if run.state is not None:
                _throw_away(run, run.state, grace)


def _throw_away(run: RestoreRun, state: RestoreState, grace: float) -> None:
    """Never raises: it runs while another error may be on its way."""
    if not state.undone:
        undoing.undo(run.ends, run.states, state, "the drill is over", grace)
    undoing.sweep(run.ends, state)


def close(run: RestoreRun) -> None:
    """End a drill whose collections were thrown away: its leases first, its state last, for by that a later one finds all there was.

    The state of a drill that could not drop everything stays.
    """
    run.close()
    state = run.state
    if state is None or not state.undone:
        return
    try:
        run.states.save(state)  # refused when another process has gone on with it
        if state.left or state.databases:
            databases = f"The drill had created {', '.join(map(repr, state.databases))}, which could not be dropped: look what is in there"
            left = undoing.what_is_left(state) if state.left else databases
            run.ends.reporter.warn(f"{left}. The next drill of this task sees to it")
        else:
            run.states.forget(state)
    except TakenOver as error:
        run.ends.reporter.line(str(error))
    except MilvusBackupError as error:
        run.ends.reporter.warn(f"could not remove the state of drill {state.restore_id}: {error}")


def clean_earlier(settings: Settings, reporter: Reporter, patience: Patience, owner: Owner, drill_id: str) -> None:
    """Undo what earlier drills have left that no longer live: those with this id, or with the same first half of it.

    What cannot be undone now is left to the next drill; the log says so.
    """
    own = short_id(drill_id)
    store = ObjectStore(settings.milvus_storage, patience)
    for directory in store.directories(""):
        if directory.startswith(f"{layout.STAGING}{own[:8]}"):
            # Each with ends of its own: undoing changes how patient they are.
            ends = Ends.open(settings, reporter, patience)
            run = RestoreRun(ends, DrillStates(ends.backups, ends.milvus_store), owner, resumable=False)
            try:
                _clean_one(run, directory.removeprefix(layout.STAGING), own)
            except MilvusBackupError as error:
                reporter.warn(f"what a drill has left in {directory}/ stays for now: {error}")
            finally:
                close(run)


def _clean_one(run: RestoreRun, short: str, own: str) -> None:
    state = run.states.find(_ANY, short)
    if state is None or short_id(state.restore_id) != short:
        return
    # It died after it had thrown everything away and had given up its lease.
    over = bool(state.undone) and not (state.left or run.ends.milvus_store.exists(undoing.lease_of(short)))
    if short == own or over or undoing.is_dead(run.ends, short, undoing.LEFTOVER):
        run.ends.reporter.line(f"a drill of backup {state.backup_name!r} was not brought to its end; what it has left is thrown away")
        run.abandon(state, "the drill did not live to throw away what it had restored")
