"""The form of the page: escaped, self-contained, the same every time, narrow enough; and the command that makes it."""

import json
import re
import subprocess
import sys

import pytest

from crops_jax import program
from crops_jax.errors import InputError
from data.report import report
from tests.data.mining_report.labels import LABELS, entry, label, page_of
from tests.pages import browser, overflow, unclosed
from tests.paths import ROOT

HOSTILE = "<script>alert(1)</script> & lamp"


def test_texts_are_escaped_wherever_they_stand(tmp_path, write_logs, write_labels, tables):
    tables["documents"] = [{"doc_id": f"d{i}", "title": HOSTILE if i else f"{HOSTILE} {'x' * 300}"} for i in range(10)]
    tables["knowledge_documents"][0]["model"] = HOSTILE
    rows = [
        label(
            HOSTILE.lower(),
            doc_id,
            entry("query_level", 5, score=0.9, via_query=HOSTILE, gap_seconds=1.0, supporters=1),
            entry(f"{HOSTILE}'", 4),
        )
        for doc_id in ("d0", "d1", "<img src=x>")
    ]
    rows.append(label("vase", "k0", entry("knowledge_level", 4)))
    outcome, html = page_of(tmp_path, write_labels(rows), write_logs(**tables))
    assert f"{HOSTILE}'" in outcome["perspectives"]
    assert "<script>alert" not in html
    assert "<img" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; lamp" in html
    assert "x" * 201 not in html


def test_the_page_is_self_contained_and_its_tables_and_pictures_can_be_read_aloud(
    tmp_path, write_logs, write_labels, tables
):
    _, html = page_of(tmp_path, write_labels(LABELS), write_logs(**tables))
    assert not re.search(r"(?:src|href)\s*=|@import|url\(", html)
    tables_of_page = re.findall(r"<table.*?</table>", html, re.S)
    assert tables_of_page
    for table in tables_of_page:
        assert "<caption>" in table
        assert re.search(r'<th scope="row"', table)
        # Lists of a name and a value need no header of columns.
        columns = len(re.findall(r"<t[dh][ >]", re.findall(r"<tr.*?</tr>", table, re.S)[-1]))
        assert columns == 2 or len(re.findall(r'<th scope="col"', table)) == columns
    pictures = re.findall(r"<svg[^>]*>", html)
    assert len(pictures) > 8
    for picture in pictures:
        assert re.search(r'role="img" aria-label="[^"]+\d', picture)
    assert unclosed(html) == []


def test_the_same_inputs_give_the_same_page(tmp_path, write_logs, write_labels, tables):
    labels, logs = write_labels(LABELS), write_logs(**tables)
    _, first = page_of(tmp_path, labels, logs)
    _, second = page_of(tmp_path, labels, logs, overwrite=True)
    assert first == second
    with pytest.raises(InputError, match="--overwrite"):
        page_of(tmp_path, labels, logs)


def test_on_the_command_line(tmp_path, write_logs, write_labels, tables):
    labels, logs = write_labels(LABELS), write_logs(**tables)
    flags = ["--labels", str(labels), "--logs", str(logs), "--output", str(tmp_path / "r.html")]
    command = [sys.executable, "-m", "data.report", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["perspectives"]["query_level"]["never_shown_share"] == 0.333333
    assert re.search(r"query level +2 +3 +3 +2 \(66\.7 %\) +1 \(33\.3 %\) +0 \(0 %\)", done.stderr)
    with pytest.raises(SystemExit) as refused:
        program.run(report, example="", arguments=flags)
    assert refused.value.code == 2


@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_overflows_in_a_browser(tmp_path, write_logs, write_labels, tables, width):
    tables["documents"] = [{"doc_id": f"d{i}", "title": "Unbreakable" * 30} for i in range(10)]
    _, html = page_of(tmp_path, write_labels(LABELS), write_logs(**tables))
    assert overflow(html, width=width, folder=tmp_path) == (0, 0)
