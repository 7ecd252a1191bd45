"""Turns a public data set into log tables.

Adapters live in data/sources, one module each; rows that the log tables would refuse are dropped and counted.
"""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crops_jax import artifacts, program
from data.sources.acceptance import drop_refused
from data.sources.raw import Conversion
from data.tables import open_logs, write_table

Source = Literal["bestbuy", "trec_session", "homedepot", "icecat", "beir"]


@dataclass(frozen=True, kw_only=True)
class ConvertArguments:
    """Arguments of data.convert."""

    source: Source
    """Which data set the input is."""
    input: str
    """Folder of the source's files, as published."""
    output: str
    """Directory to write the log tables to."""
    overwrite: bool = False
    """Replace the output where it exists."""


def convert(arguments: ConvertArguments) -> dict[str, Any]:
    """Turns a public data set into log tables.

    What the source lacks stays absent. Rows that the log tables would refuse are dropped and counted.
    """
    artifacts.check_output(arguments.output, overwrite=arguments.overwrite, inputs={"input": arguments.input})
    converted: Conversion = importlib.import_module(f"data.sources.{arguments.source}").convert(Path(arguments.input))
    tables, dropped = drop_refused(converted.tables)
    for name, counts in converted.dropped.items():
        dropped[name] = {**counts, **dropped.get(name, {})}
    with artifacts.output_directory(
        arguments.output,
        overwrite=arguments.overwrite,
        program="data.convert",
        kind="logs",
        arguments=arguments,
        inputs={"input": arguments.input},
        dropped=dropped,
    ) as out:
        for name, table in tables.items():
            write_table(out, name, table)
        open_logs(out)
    rows = {name: table.num_rows for name, table in tables.items()}
    for name, count in rows.items():
        reasons = ", ".join(f"{number} rows dropped ({reason})" for reason, number in dropped.get(name, {}).items())
        print(f"{name}: {count} rows{'; ' + reasons if reasons else ''}", file=sys.stderr)
    return {"output": arguments.output, "source": arguments.source, "tables": rows, "dropped": dropped}


if __name__ == "__main__":
    program.run(convert, example="python -m data.convert --source trec_session --input raw --output logs")
