"""Progress in a task's log: one foldable group per phase."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from airflow_provider_milvus_backup.core.report import Reporter


class TaskReporter(Reporter):
    """Writes phases as the groups that Airflow's UI folds."""

    @contextlib.contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """Open a group, and close it also when the phase fails."""
        self.log.info("::group::%s", title)
        try:
            yield
        finally:
            self.log.info("::endgroup::")
