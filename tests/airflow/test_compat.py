from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable

import pytest

from airflow_provider_milvus_backup import _compat


def test_importing_compat_warns_of_nothing() -> None:
    # In a new process: a warning shows only at the first import. Airflow's own warnings about others are not ours,
    # so only those that Python attributes to our file count.
    code = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from airflow_provider_milvus_backup import _compat
ours = [str(w.message) for w in caught if w.filename == _compat.__file__ or "airflow_provider_milvus" in str(w.message)]
deprecated = [str(w.message) for w in caught if type(w.message).__name__ in ("DeprecatedImportWarning",
    "RemovedInAirflow3Warning", "RemovedInAirflow4Warning", "AirflowProviderDeprecationWarning")]
assert not ours + deprecated, ours + deprecated
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "Deprecat" not in done.stderr


def test_importing_compat_loads_no_client() -> None:
    code = """
import sys
from airflow_provider_milvus_backup import _compat
print([name for name in ("pymilvus", "grpc", "boto3", "obstore", "wtforms") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", _compat.__all__)
def test_every_promised_name_is_there(name: str) -> None:
    assert getattr(_compat, name) is not None


def test_the_classes_are_those_that_airflow_itself_checks_for() -> None:
    # The classes of another import path are refused by the scheduler or the task runner, or worse, not seen by them.
    from airflow.triggers.base import BaseTrigger

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old path, which Airflow 3.3 still has and warns of
        from airflow.exceptions import AirflowException, AirflowFailException, AirflowSkipException

    assert _compat.BaseTrigger is BaseTrigger
    assert _compat.AirflowException is AirflowException
    assert _compat.AirflowFailException is AirflowFailException
    assert _compat.AirflowSkipException is AirflowSkipException
    assert issubclass(_compat.BaseSensorOperator, _compat.BaseOperator)


def test_trigger_on_kill_says_whether_airflow_calls_it() -> None:
    assert _compat.TRIGGER_ON_KILL is ("on_kill" in vars(_compat.BaseTrigger))


def test_the_deferrable_default_is_read_as_operators_read_it() -> None:
    assert _compat.conf.getboolean("operators", "default_deferrable", fallback=False) is False


def test_mask_secret_hides_the_value() -> None:
    try:
        from airflow.sdk.log import redact
    except ImportError:
        try:
            from airflow.sdk.execution_time.secrets_masker import redact
        except ImportError:
            from airflow.utils.log.secrets_masker import redact

    _compat.mask_secret("kept-out-of-every-log")
    assert "kept-out-of-every-log" not in str(redact("it is kept-out-of-every-log here"))


def test_a_connection_and_its_extra_are_read_on_a_running_loop(set_connection: Callable[..., None]) -> None:
    set_connection("milvus_async", conn_type="milvus", host="milvus.test", port=19530, extra={"bucket_name": "b"})

    async def read() -> tuple[str | None, object]:
        connection = await _compat.get_connection_async("milvus_async")
        return connection.host, await _compat.get_extra_async(connection)

    assert asyncio.run(read()) == ("milvus.test", {"bucket_name": "b"})


def test_a_slow_lookup_does_not_block_the_loop_where_airflow_has_no_async_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # The way of Airflow 2.11 to 3.3.1, forced on every Airflow.
    looked_up_in: list[threading.Thread] = []

    class SlowHook:
        @classmethod
        def get_connection(cls, conn_id: str) -> str:
            looked_up_in.append(threading.current_thread())
            return f"connection {conn_id}"

    monkeypatch.setattr(_compat, "_ASYNC_CONNECTIONS", False)
    monkeypatch.setattr(_compat, "BaseHook", SlowHook)

    assert asyncio.run(_compat.get_connection_async("slow")) == "connection slow"
    assert looked_up_in[0] is not threading.main_thread()


def test_the_async_lookup_is_not_used_where_it_can_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    # Airflow 3.1.0 to 3.3.1 have `aget_connection` but not yet `aextra_dejson`.
    has_both = hasattr(_compat.BaseHook, "aget_connection") and hasattr(_compat.Connection, "aextra_dejson")
    assert _compat._ASYNC_CONNECTIONS is has_both


def test_an_unknown_connection_fails_with_its_name(airflow_db: object) -> None:
    with pytest.raises(_compat.AirflowException, match="no_such_connection"):
        asyncio.run(_compat.get_connection_async("no_such_connection"))
