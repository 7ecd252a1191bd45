"""Tables of users that a mapping describes."""

import pytest

from crops_jax.errors import InputError
from tests.data.sources.conversions import converted, rows
from tests.data.sources.raw_folders import MAPPING, MS, T0, mapped


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
        "searches": {"time: null in a required column": 1},
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
