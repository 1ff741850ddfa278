"""
The only module that knows Airflow 2.11 from Airflow 3.x.

Every name is looked for where the newest Airflow keeps it, then where older ones do, so that no line prints a
deprecation warning. Nothing compares versions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from airflow.sdk import (
        BaseHook,
        BaseOperator,
        BaseSensorOperator,
        Connection,
        Context,
        PokeReturnValue,
    )
    from airflow.sdk.configuration import conf
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
    )
    from airflow.sdk.log import mask_secret
else:
    try:
        from airflow.sdk import (
            BaseOperator,
            BaseSensorOperator,
            Connection,
            Context,
            PokeReturnValue,
        )
    except ImportError:  # Airflow 2
        from airflow.models.baseoperator import BaseOperator
        from airflow.models.connection import Connection
        from airflow.sensors.base import BaseSensorOperator, PokeReturnValue
        from airflow.utils.context import Context

    # One `try` each from here on: Airflow 3.0 has the names above and keeps those below where Airflow 2 did.
    try:
        from airflow.sdk import BaseHook
    except ImportError:
        from airflow.hooks.base import BaseHook

    try:
        from airflow.sdk.exceptions import (
            AirflowException,
            AirflowFailException,
            AirflowNotFoundException,
            AirflowSensorTimeout,
            AirflowSkipException,
        )
    except ImportError:
        from airflow.exceptions import (
            AirflowException,
            AirflowFailException,
            AirflowNotFoundException,
            AirflowSensorTimeout,
            AirflowSkipException,
        )

    try:
        from airflow.sdk.configuration import conf
    except ImportError:
        from airflow.configuration import conf

    try:
        from airflow.sdk.log import mask_secret
    except ImportError:
        try:  # Airflow 3.0
            from airflow.sdk.execution_time.secrets_masker import mask_secret
        except ImportError:  # Airflow 2
            from airflow.utils.log.secrets_masker import mask_secret

__all__ = [
    "TRIGGER_ON_KILL",
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "BaseHook",
    "BaseOperator",
    "BaseSensorOperator",
    "BaseTrigger",
    "Connection",
    "Context",
    "PokeReturnValue",
    "TriggerEvent",
    "conf",
    "get_connection_async",
    "get_extra_async",
    "mask_secret",
]

TRIGGER_ON_KILL: bool = hasattr(BaseTrigger, "on_kill")
"""Whether a trigger is told that its task was marked or cleared by a user (Airflow 3.3 and later)."""

# `aextra_dejson` came together with the `aget_connection` that masks secrets without blocking. The one before it
# may raise DeadlockImminentError, a BaseException, when another call to the supervisor is under way.
_ASYNC_CONNECTIONS: bool = hasattr(BaseHook, "aget_connection") and hasattr(Connection, "aextra_dejson")


async def get_connection_async(conn_id: str) -> Connection:
    """Return a connection without blocking the event loop; for triggers."""
    if _ASYNC_CONNECTIONS:
        return await BaseHook.aget_connection(conn_id)

    # Not asyncio.to_thread: on Airflow 3 the lookup hops back to this loop, which only asgiref's threads can do.
    from asgiref.sync import sync_to_async

    return await sync_to_async(BaseHook.get_connection)(conn_id)


async def get_extra_async(connection: Connection) -> dict[str, Any]:
    """
    Return the extra of a connection without blocking the event loop; for triggers.

    Reading ``connection.extra_dejson`` there masks its secrets by a blocking call to the supervisor.
    """
    if _ASYNC_CONNECTIONS:
        return cast("dict[str, Any]", await connection.aextra_dejson())

    from asgiref.sync import sync_to_async

    return cast("dict[str, Any]", await sync_to_async(lambda: connection.extra_dejson)())
