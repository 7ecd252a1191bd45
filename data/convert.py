"""Turns a public data set into log tables.

data/sources has one adapter module for each data set. Rows that break a rule of the log tables are dropped and counted.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crops_jax import artifacts, program
from crops_jax.errors import InputError
from crops_jax.program.progress import say
from crops_jax.storage import InputPath, OutputPath
from data.conversion.acceptance import accept, check_rows_remain
from data.conversion.raw import Conversion
from data.conversion.streamed import Streamed
from data.tables import open_logs

Source = Literal[
    "bestbuy",
    "trec_session",
    "homedepot",
    "icecat",
    "beir",
    "kuaisearch",
    "qilin",
    "kuaisar",
    "recflow",
    "esci",
    "msmarco",
    "wands",
    "multi_cpr",
    "qbqtc",
    "ubi",
    "mapping",
]


@dataclass(frozen=True, kw_only=True)
class ConvertArguments:
    """The arguments of data.convert."""

    source: Source
    """The data set of the input. "mapping" reads any JSONL, CSV, TSV or Parquet files; see data/sources/mapping.py."""
    input: InputPath
    """The folder of the source's files, as they are published."""
    output: OutputPath
    """The directory to write the log tables to."""
    mapping: InputPath | None = None
    """The TOML file that maps the columns, for --source mapping. The default is INPUT/mapping.toml."""
    overwrite: bool = False
    """Replace the output if it exists."""


_DECLARED = {"relevant_grade": "RELEVANT_GRADE", "judged_by_group": "JUDGED_BY_GROUP"}
"""The field of the manifest -> the constant of an adapter that declares it."""


def convert(arguments: ConvertArguments) -> dict[str, Any]:
    """Turns a public data set into log tables.

    Tables and columns that the source lacks are left out. Rows that break a rule of the log tables are dropped and
    counted; a required table of which nothing remains is refused.
    """
    inputs = {"input": arguments.input} | ({"mapping": arguments.mapping} if arguments.mapping else {})
    if arguments.mapping and arguments.source != "mapping":
        raise InputError(f"--mapping is only for --source mapping, found --source {arguments.source}; leave it out")
    artifacts.check_output(arguments.output, overwrite=arguments.overwrite, inputs=inputs)
    adapter = importlib.import_module(f"data.sources.{arguments.source}")
    options = {"mapping": Path(arguments.mapping)} if arguments.mapping else {}
    converted: Conversion | Streamed = adapter.convert(Path(arguments.input), **options)
    declared = {
        field: value for field, name in _DECLARED.items() if (value := getattr(adapter, name, None)) is not None
    }
    with accept(converted) as accepted:
        check_rows_remain(accepted, arguments.input)
        left_empty = {"left_empty": accepted.left_empty} if accepted.left_empty else {}
        with artifacts.output_directory(
            arguments.output,
            overwrite=arguments.overwrite,
            program="data.convert",
            kind="logs",
            arguments=arguments,
            inputs=inputs,
            dropped=accepted.dropped,
            **left_empty,
            **declared,
        ) as out:
            accepted.write(out)
            open_logs(out)
    rows, dropped = accepted.rows, accepted.dropped
    for name, count in rows.items():
        reasons = ", ".join(f"{number} rows dropped ({reason})" for reason, number in dropped.get(name, {}).items())
        empty = ", ".join(
            f"{n} values left empty ({reason})" for reason, n in accepted.left_empty.get(name, {}).items()
        )
        say(f"{'; '.join(filter(None, (f'{name}: {count} rows', reasons, empty)))}")
    return {"output": arguments.output, "source": arguments.source, "tables": rows, "dropped": dropped} | left_empty


if __name__ == "__main__":
    program.run(
        convert,
        example="python -m data.convert --source trec_session --input raw --output logs",
        then=(
            "data.inspect {output}",
            "data.hold_out --logs {output} --from TIME --output SPLIT",
            "launch.pipeline CONFIG --logs {output} --from TIME --output WORK",
        ),
    )
