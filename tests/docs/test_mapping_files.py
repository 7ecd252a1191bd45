"""The mapping files that the pages show are taken, and convert files that have the columns which they name."""

import csv
from pathlib import Path

import pyarrow.parquet as pq

from data.convert import ConvertArguments, convert
from tests.docs.markdown import ROOT, read

FILES = {
    "products.csv": [{"sku": f"p{i}", "name": f"lamp {i}", "description": "a, b\n#c"} for i in range(3)],
    "searches.csv": [{"id": f"s{i}", "user": "u", "typed": "lamp", "at": f"2026-05-01 10:0{i}:00"} for i in range(2)],
    "clicks.csv": [
        {"id": f"s{i}", "sku": f"p{rank}", "rank": rank + 1, "clicked": int(i == rank)}
        for i in range(2)
        for rank in range(3)
    ],
}


def write_csv(file: Path, rows: list[dict]) -> None:
    with open(file, "w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_the_mapping_of_the_front_page_converts_csv_files(tmp_path):
    (mapping,) = [text for language, text in read(ROOT / "README.md").blocks if language == "toml"]
    (tmp_path / "shop.toml").write_text(mapping)
    (tmp_path / "csv").mkdir()
    for name, rows in FILES.items():
        write_csv(tmp_path / "csv" / name, rows)
    logs = tmp_path / "LOGS"
    files = {"input": str(tmp_path / "csv"), "mapping": str(tmp_path / "shop.toml")}
    outcome = convert(ConvertArguments(source="mapping", output=str(logs), **files))
    assert outcome["tables"] == {"documents": 3, "searches": 2, "candidates": 6}
    assert outcome["dropped"] == {}
    candidates = pq.read_table(logs / "candidates.parquet")
    assert candidates["clicked"].to_pylist() == [True, False, False, False, True, False]
    assert set(candidates["stage"].to_pylist()) == {"shown"}
    assert pq.read_table(logs / "documents.parquet")["text"].to_pylist() == ["a, b\n#c"] * 3
