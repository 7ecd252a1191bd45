"""Broken column mappings and broken files of users: refused, or the log tables hold every row that is right."""

import json
from pathlib import Path
from random import Random
from typing import Any

from data.convert import ConvertArguments, convert
from data.tables import open_logs
from tests import fuzzing
from tests.fuzzing import ACCEPTED

_MAPPING: dict[str, Any] = {
    "documents": {"files": "products.jsonl", "columns": {"doc_id": "sku", "title": "name"}},
    "judgements": {
        "files": "grades.csv",
        "columns": {"query": "typed", "doc_id": "sku", "grade": "stars", "split": "part"},
        "values": {"split": {"a": "train", "b": "test"}},
        "scale": {"grade": 0.5},
    },
}
_PRODUCTS = [{"sku": f"d{i}", "name": f"product {i}", "price": i} for i in range(6)]
_GRADES = [
    ["typed", "sku", "stars", "part"],
    ["red shoe", "d1", "3", "a"],
    ["tie", "d2", "5", "b"],
    ["tie", "d3", "0", "a"],
]


def _toml(tables: Any) -> str:
    """A value as TOML, oddities included; what cannot be TOML is written as JSON and is then refused."""
    if not isinstance(tables, dict):
        return json.dumps(tables)
    lines = []
    for name, fields in tables.items():
        lines.append(f"[{json.dumps(name)}]")
        for key, value in fields.items() if isinstance(fields, dict) else [("x", fields)]:
            lines.append(f"{json.dumps(key)} = {_inline(value)}")
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return "''" if value is None else json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


def _write(folder: Path, mapping: bytes, products: bytes, grades: bytes) -> None:
    (folder / "raw").mkdir()
    (folder / "raw" / "mapping.toml").write_bytes(mapping)
    (folder / "raw" / "products.jsonl").write_bytes(products)
    (folder / "raw" / "grades.csv").write_bytes(grades)


def _converted(folder: Path) -> dict[str, Any]:
    return convert(ConvertArguments(source="mapping", input=str(folder / "raw"), output=str(folder / "logs")))


def _jsonl(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _csv(rows: list[list[str]]) -> bytes:
    return "".join(",".join(row) + "\n" for row in rows).encode()


def mapping_case(generator: Random, folder: Path) -> str:
    """A mapping with another key, value or type somewhere, or that is no TOML."""
    if generator.random() < 0.2:
        mapping = fuzzing.mutated_bytes(generator, _toml(_MAPPING).encode())
    else:
        changed = fuzzing.mutated_json(generator, _MAPPING)
        mapping = _toml(changed).encode(errors="surrogatepass")
    _write(folder, mapping, _jsonl(_PRODUCTS), _csv(_GRADES))
    outcome = _converted(folder)
    logs = open_logs(folder / "logs")
    read = {"documents": len(_PRODUCTS), "judgements": len(_GRADES) - 1}
    for name, number in outcome["tables"].items():
        dropped = sum(outcome["dropped"].get(name, {}).values())
        assert logs.read(name).num_rows == number
        assert number + dropped in (*read.values(), *([0] if not number else [])), (name, outcome)
    return ACCEPTED


def lines_case(generator: Random, folder: Path) -> str:
    """JSON lines and CSV with broken lines, fields and bytes; every line is read, dropped with a count, or refused."""
    products: list[Any] = [dict(row) for row in _PRODUCTS]
    grades = [list(row) for row in _GRADES]
    raw_products, raw_grades = _jsonl(products), _csv(grades)
    kept = {"documents": len(products), "judgements": len(grades) - 1}
    exact = True
    match generator.randrange(5):
        case 0:
            place = generator.randrange(len(products))
            products[place]["sku"] = generator.choice([None, "", " ", "d1" if place != 1 else "d2"])
            raw_products = _jsonl(products)
            kept["documents"] -= 1
        case 1:
            place = 1 + generator.randrange(len(grades) - 1)
            column, value = generator.choice([(0, ""), (1, " "), (2, "-1"), (2, "many"), (2, "nan"), (3, "c"), (2, "")])
            grades[place][column] = value
            raw_grades = _csv(grades)
            kept["judgements"] -= 1
        case 2:
            exact = False
            products[generator.randrange(len(products))] = fuzzing.mutated_json(generator, products[0])
            raw_products = _jsonl(products)
        case 3:
            exact = False
            raw_products = fuzzing.mutated_bytes(generator, raw_products)
        case 4:
            exact = False
            raw_grades = fuzzing.mutated_bytes(generator, raw_grades)
    _write(folder, _toml(_MAPPING).encode(), raw_products, raw_grades)
    outcome = _converted(folder)
    logs = open_logs(folder / "logs")
    assert {name: logs.read(name).num_rows for name in logs.names} == outcome["tables"]
    totals = {
        name: number + sum(outcome["dropped"].get(name, {}).values()) for name, number in outcome["tables"].items()
    }
    if exact:
        assert outcome["tables"] == kept, outcome
        assert totals == {"documents": len(_PRODUCTS), "judgements": len(_GRADES) - 1}
    else:
        # A JSON line is a row; damage may join two of CSV's lines by a quote, or part one, and no more than that.
        lines = sum(1 for line in raw_products.split(b"\n") if line.strip())
        assert totals["documents"] == lines
    return ACCEPTED


@fuzzing.sizes(mapping_case)
def test_mappings(number, tmp_path):
    fuzzing.run(mapping_case, number, tmp_path, refused=1 / 10)


@fuzzing.sizes(lines_case)
def test_lines(number, tmp_path):
    fuzzing.run(lines_case, number, tmp_path, accepted=1 / 20, refused=1 / 20)
