"""The truth beside log tables of a generated world: which documents are relevant for the queries that were searched.

DIRECTORY/truth/pairs.parquet: query (normalised), doc_id, grade, shown (whether a search of the whole log showed the
document for the query). It is none of the log tables: open_logs does not know it, so nothing that learns from log
tables reads it. data.hold_out copies it into the SPLIT, and launch.evaluate and data.report measure with it.
"""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax.errors import InputError

FOLDER = "truth"
PAIRS = "pairs.parquet"
SCHEMA = pa.schema([("query", pa.string()), ("doc_id", pa.string()), ("grade", pa.float64()), ("shown", pa.bool_())])


def has_truth(directory: Path | str) -> bool:
    """Returns whether the truth lies beside the log tables of a directory."""
    return (Path(directory) / FOLDER / PAIRS).is_file()


def read_truth(directory: Path | str, columns: list[str] | None = None) -> pa.Table:
    """Returns the pairs of a directory for which `has_truth` holds.

    Raises InputError if the file cannot be read or lacks a column.
    """
    file = Path(directory) / FOLDER / PAIRS
    wanted = SCHEMA if columns is None else pa.schema([SCHEMA.field(column) for column in columns])
    try:
        return pq.read_table(file, columns=wanted.names).select(wanted.names).cast(wanted)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(
            f"{file}: no table with the columns {', '.join(wanted.names)} ({error}); simulate again, or remove the "
            f"folder {FOLDER}"
        ) from error


def write_truth(directory: Path, pairs: pa.Table) -> None:
    """Writes DIRECTORY/truth/pairs.parquet."""
    (directory / FOLDER).mkdir()
    pq.write_table(
        pairs.select(SCHEMA.names).cast(SCHEMA), directory / FOLDER / PAIRS, compression="zstd", row_group_size=1 << 18
    )


def copy_truth(source: Path | str, directory: Path) -> None:
    """Copies the truth of a directory to another one, unread; does nothing where there is none."""
    if has_truth(source):
        (directory / FOLDER).mkdir()
        shutil.copyfile(Path(source) / FOLDER / PAIRS, directory / FOLDER / PAIRS)
