"""How Milvus says no over REST."""

from __future__ import annotations

from typing import Any

# ``pkg/util/merr/errors.go`` of milvus-io/milvus.
UNAVAILABLE, PARAMETER_INVALID, UNAUTHENTICATED, FORMAT, MISSING, IMPORT_FAILED = 2, 1100, 1800, 1801, 1802, 2100
COLLECTION_NOT_FOUND, PARTITION_NOT_FOUND, SEGMENT_NOT_FOUND, DATABASE_NOT_FOUND = 100, 200, 600, 800


class Refused(Exception):
    """An answer other than success: a code, a message, and an HTTP status that hardly ever says anything."""

    def __init__(self, code: int, message: str, status: int = 200) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status

    def body(self) -> dict[str, Any]:
        """Return the answer's JSON."""
        return {"code": self.code, "message": self.message}


def import_failed(reason: str) -> Refused:
    """Return what ``merr.WrapErrImportFailed`` makes."""
    return Refused(IMPORT_FAILED, f"{reason}: importing data failed")
