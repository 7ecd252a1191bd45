"""Tables of users that a mapping describes."""

import pytest

from crops_jax.errors import InputError
from tests.data.sources.conversions import converted, rows
from tests.data.sources.raw_folders import MAPPING, MS, T0, mapped, put


def test_mapping_reads_files_of_three_formats(tmp_path):
    logs, outcome = converted("mapping", mapped(tmp_path / "raw"), tmp_path)
    assert rows(logs, "documents") == [{"doc_id": "s1", "title": "Acme Tv"}, {"doc_id": "s2", "title": "Lamp"}]
    assert rows(logs, "searches") == [
        {"search_id": "1", "user_id": "u", "query": "tv", "time": T0, "group": "it's spring"}
    ]
    assert rows(logs, "candidates") == [
        {"search_id": "1", "doc_id": "s1", "stage": "shown", "clicked": True, "watch_seconds": 2.5}
    ]
    assert outcome["dropped"] == {
        "searches": {"time: value is no time": 1},
        "candidates": {"stage: unknown stage value": 1, "search_id not in searches": 1},
    }


@pytest.mark.parametrize(
    ("times", "fields"),
    [
        (str(MS), 'time_unit = "ms"'),
        (str(MS / 1000), 'time_unit = "s"'),
        ("2024-05-31T12:00:00Z", ""),
        ("2024-05-31 14:00:00+02", 'time_zone = "Asia/Shanghai"'),
        ("2024-05-31 20:00:00", 'time_zone = "Asia/Shanghai"'),
        ("2024-05-31 12:00:00", ""),
        ("31.05.2024 14:00 +0200", 'time_format = "%d.%m.%Y %H:%M %z"'),
    ],
)
def test_mapping_takes_times_as_they_come(tmp_path, times, fields):
    searches = f'files = "searches.csv"\n{fields}\n[searches.columns]'
    mapping = MAPPING[: MAPPING.index('files = "searches.csv"')] + searches + MAPPING.split("[searches.columns]")[1]
    raw = mapped(tmp_path / "raw", mapping)
    (raw / "searches.csv").write_text(f"id,visitor,typed,at\n1,u,tv,{times}\n")
    logs, _ = converted("mapping", raw, tmp_path)
    assert rows(logs, "searches")[0]["time"] == T0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[documents]\n", "[documents\n", r"mapping\.toml is not TOML"),
        ("[documents]\n", "[products]\n", r"unknown table products"),
        ('title = ["brand", "name"]', "", r"\[documents\] maps no title"),
        ('doc_id = "sku"\ntitle', 'doc_id = "asin"\ntitle', r"products/\*\.jsonl\.gz: column asin"),
        ("products/*.jsonl.gz", "products/*.xml", r"documents\.files is 'products/\*\.xml'"),
        ('files = "searches.csv"', "", r"\[searches\] has no text `files`"),
        ('files = "searches.csv"', 'files = "searches.csv"\nunit = 1', r"\[searches\] has unknown unit"),
        ("Asia/Shanghai", "Atlantis", r"searches\.time_zone is 'Atlantis'"),
        ('time_format = "%d/%m/%Y %H:%M:%S"', 'time_unit = "h"', r"searches\.time_unit is 'h'"),
        ("watch_seconds = 0.001", 'watch_seconds = "x"', r"candidates\.scale\.watch_seconds is 'x'"),
        ('exposed = "shown"', "exposed = []", r"candidates\.values\.stage\.exposed is \[\]"),
    ],
)
def test_mapping_names_the_field_that_is_wrong(tmp_path, old, new, message):
    assert old in MAPPING
    with pytest.raises(InputError, match=message):
        converted("mapping", mapped(tmp_path / "raw", MAPPING.replace(old, new, 1)), tmp_path)


def test_the_mapping_may_lie_elsewhere_and_goes_with_its_source_only(tmp_path):
    raw = mapped(tmp_path / "raw")
    file = (raw / "mapping.toml").rename(tmp_path / "shop.toml")
    with pytest.raises(InputError, match=r"mapping\.toml: no such file"):
        converted("mapping", raw, tmp_path)
    converted("mapping", raw, tmp_path, mapping=str(file))
    with pytest.raises(InputError, match="--mapping is only for --source mapping"):
        converted("esci", raw, tmp_path, mapping=str(file))


COLUMNS = {
    "documents": ("doc_id", "title", "published_at"),
    "searches": ("search_id", "user_id", "query", "time"),
    "candidates": ("search_id", "doc_id", "stage", "position", "clicked", "watch_seconds"),
}


def equal_names(folder, ending, **files):
    """A folder of CSV or JSON Lines whose columns have the names of the log tables, with its mapping."""
    mapping = ""
    for name, columns in COLUMNS.items():
        listed = "".join(f'{column} = "{column}"\n' for column in columns)
        mapping += f'[{name}]\nfiles = "{name}*{ending}"\n[{name}.columns]\n{listed}'
    return put(folder, {"mapping.toml": mapping} | files)


DOCUMENTS = "doc_id,title,published_at\nd1,one,\nd2,two,2024-05-31\n"
SEARCHES = f"search_id,user_id,query,time\ns1,u,tv,{MS}\n"
CANDIDATES = "search_id,doc_id,stage,position,clicked,watch_seconds\n"


def test_values_that_cannot_be_read_are_counted_by_column_and_reason(tmp_path):
    lines = [
        "s1,d1,shown,1.0,1.0,40",
        "s1,d2,shown,1.5,0.0,",
        "s1,d2,shown,2,2,",
        "s1,d2,shown,3,,40s",
        "s1,d2,shown,,0.0,",
    ]
    files = {"documents.csv": DOCUMENTS, "searches.csv": SEARCHES, "candidates.csv": CANDIDATES + "\n".join(lines)}
    logs, outcome = converted("mapping", equal_names(tmp_path / "raw", ".csv", **files), tmp_path)
    shown = {"search_id": "s1", "stage": "shown"}
    assert rows(logs, "candidates") == [
        shown | {"doc_id": "d1", "position": 1, "clicked": True, "watch_seconds": 40.0},
        shown | {"doc_id": "d2", "clicked": False},
    ]
    assert outcome["dropped"] == {
        "candidates": {
            "position: value is no whole number": 1,
            "clicked: value is no flag (true, false, 1 or 0)": 1,
            "watch_seconds: value is no number": 1,
        }
    }


def test_ids_that_a_spreadsheet_shortened_are_refused_or_counted(tmp_path):
    searches = f"search_id,user_id,query,time\ns1,1.15292E+18,tv,{MS}\n"
    files = {"documents.csv": DOCUMENTS, "searches.csv": searches, "candidates.csv": CANDIDATES + "s1,d1,shown,1,1,\n"}
    with pytest.raises(
        InputError, match=r"column user_id: none of 1 values can be read; .*digits of the number are lo"
    ):
        converted("mapping", equal_names(tmp_path / "raw", ".csv", **files), tmp_path)
    files["searches.csv"] = searches + f"s2,7,tv,{MS}\n"
    files["candidates.csv"] += "s2,d1,shown,1,1,\n"
    logs, outcome = converted("mapping", equal_names(tmp_path / "more", ".csv", **files), tmp_path)
    assert [row["user_id"] for row in rows(logs, "searches")] == ["7"]
    assert outcome["dropped"]["searches"] == {"user_id: value is no id, since digits of the number are lost": 1}


def test_columns_of_which_nothing_can_be_read_are_refused_together(tmp_path):
    lines = ['s1,d1,shown,first,yes!,"40,0"', "s1,d2,shown,,no!,"]
    files = {"documents.csv": DOCUMENTS, "searches.csv": SEARCHES, "candidates.csv": CANDIDATES + "\n".join(lines)}
    with pytest.raises(InputError) as refused:
        converted("mapping", equal_names(tmp_path / "raw", ".csv", **files), tmp_path)
    for part in (
        "column position: none of 1 values can be read; the first is 'first', which is no whole number",
        "column clicked: none of 2 values can be read; the first is 'yes!', which is no flag",
        "column watch_seconds: none of 1 values can be read; the first is '40,0', which is no number",
    ):
        assert part in str(refused.value)
    assert not (tmp_path / "logs").exists()


def test_a_table_of_which_nothing_remains_is_refused_with_reasons_and_examples(tmp_path):
    files = {
        "documents.csv": DOCUMENTS,
        "searches.csv": SEARCHES,
        "candidates.csv": CANDIDATES + "s1,d7,shown,1,1,\ns1,d1,clicked,1,1,\ns1,d2,shown,0,1,\n",
    }
    raw = equal_names(tmp_path / "raw", ".csv", **files)
    with pytest.raises(InputError) as refused:
        converted("mapping", raw, tmp_path)
    assert str(refused.value) == (
        f"table candidates: --input {raw} has no rows for it: 1 rows dropped (stage: unknown stage value, such as "
        "'clicked'), 1 rows dropped (position: position value is below 1, such as '0'), 1 rows dropped (doc_id not in "
        "documents, such as 'd7'); correct the files, or the way they are mapped"
    )


def test_documents_without_rows_are_refused_beside_judgements(tmp_path):
    mapping = "".join(
        f'[{name}]\nfiles = "{name}.csv"\n[{name}.columns]\n'
        + "".join(f'{column} = "{column}"\n' for column in columns)
        for name, columns in {"documents": ["doc_id", "title"], "judgements": ["query", "doc_id", "grade"]}.items()
    )
    files = {"documents.csv": "doc_id,title\n", "judgements.csv": "query,doc_id,grade\ntv,d1,1\n"}
    raw = put(tmp_path / "raw", {"mapping.toml": mapping} | files)
    with pytest.raises(InputError, match=r"table documents: --input .*raw has no rows for it; correct the files"):
        converted("mapping", raw, tmp_path)


def test_keys_of_later_lines_and_columns_of_later_files_are_read(tmp_path):
    found = {"search_id": "s1", "stage": "shown"}
    raw = equal_names(
        tmp_path / "raw",
        ".jsonl",
        **{
            "documents1.jsonl": [{"doc_id": "d1", "title": ["a", "list"]}],
            "documents2.jsonl": [{"_source": {"doc_id": "d2", "title": "two", "published_at": MS // 1000}}],
            "searches.jsonl": [{"search_id": "s1", "user_id": "u", "query": "tv", "time": MS}],
            "candidates.jsonl": [
                found | {"doc_id": "d1"},
                found | {"doc_id": "d2", "position": 1, "clicked": True, "watch_seconds": 2.5},
            ],
        },
    )
    (raw / "searches.jsonl").write_text("\ufeff" + (raw / "searches.jsonl").read_text() + '{"search_id": "\\ud83d"}\n')
    logs, outcome = converted("mapping", raw, tmp_path)
    assert rows(logs, "documents") == [
        {"doc_id": "d1", "title": "a list"},
        {"doc_id": "d2", "title": "two", "published_at": T0},
    ]
    assert rows(logs, "candidates") == [
        found | {"doc_id": "d1"},
        found | {"doc_id": "d2", "position": 1, "clicked": True, "watch_seconds": 2.5},
    ]
    assert outcome["dropped"] == {"searches": {"no JSON object (first: searches.jsonl, line 2)": 1}}
