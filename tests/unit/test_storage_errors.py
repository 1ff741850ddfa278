"""Which answers of a store are worth another attempt, in the words of both clients."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from airflow_provider_milvus_backup.core.storage_errors import storage_error, throttled, transient


def answered(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "of the store"}}, "DeleteObjects")


@pytest.mark.parametrize("code", ["SlowDown", "SlowDownRead", "SlowDownWrite", "503", "429", "TooManyRequests"])
def test_a_store_that_is_too_busy_passes_and_wants_fewer_requests(code: str) -> None:
    assert (throttled(answered(code)), transient(answered(code))) == (True, True)
    assert storage_error(answered(code), "cannot delete").passing


@pytest.mark.parametrize("code", ["InternalError", "RequestTimeout", "OperationAborted", "500", "502", "504"])
def test_a_failure_of_the_store_passes_and_says_nothing_of_the_rate(code: str) -> None:
    assert (throttled(answered(code)), transient(answered(code))) == (False, True)


def test_a_connection_that_was_closed_is_opened_again() -> None:
    assert transient(ConnectionClosedError(endpoint_url="http://nowhere.invalid"))


@pytest.mark.parametrize("code", ["AccessDenied", "NoSuchKey", "InvalidRequest", "MalformedXML", "403", "404", "NotImplemented"])
def test_a_refusal_stays_one(code: str) -> None:
    assert (throttled(answered(code)), transient(answered(code))) == (False, False)
