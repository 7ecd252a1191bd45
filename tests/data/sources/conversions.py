"""Raw folders converted into log tables, and the rows of these."""

from data.convert import ConvertArguments, convert
from data.tables import open_logs


def converted(source, raw, tmp_path, name="logs", **options):
    outcome = convert(ConvertArguments(source=source, input=str(raw), output=str(tmp_path / name), **options))
    return open_logs(tmp_path / name), outcome


def rows(logs, name):
    return [{key: value for key, value in row.items() if value is not None} for row in logs.read(name).to_pylist()]
