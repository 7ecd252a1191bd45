"""A worker process of data.write_records that ends before its time."""

from typing import Any

from data.records.builder import RecordWorker, SomeQueries
from tests.data.records.worker_tasks import answer


class KilledAtRecords(RecordWorker):
    """Ends as when the kernel has no memory left, once it is to build records."""

    def __call__(self, task: Any) -> Any:
        return answer("killed") if isinstance(task, SomeQueries) else super().__call__(task)
