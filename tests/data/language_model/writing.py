"""What documents are written about, the clock of the writing, and what was written."""

import asyncio

import pyarrow.parquet as pq

THINGS = ["lamp", "chair", "phone", "table"]


class FakeClock:
    """Time that passes only by sleeping."""

    def __init__(self):
        self.time, self.slept = 0.0, []

    def now(self):
        return self.time

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


def table(directory):
    return pq.read_table(directory / "knowledge_documents.parquet").to_pylist()
