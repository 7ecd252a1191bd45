"""Pages: shares in words, where they may be written, and that their manifest cannot break out."""

import json
import re

import pytest

from crops_jax.errors import InputError
from crops_jax.pages.page import check_page, share, write_page

TEMPLATE = """{% extends "page.html.j2" %}
{% block title %}{{ name }}{% endblock %}
{% block header %}<h1>{{ name }}</h1>{% endblock %}
{% block content %}<p>{{ 1234 | count }} {{ 0.5 | share }} {{ -0.25 | signed }} {{ none | figure }}</p>{% endblock %}
"""


@pytest.fixture
def template(tmp_path):
    file = tmp_path / "some.html.j2"
    file.write_text(TEMPLATE)
    return file


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.123, "12.3 %"),
        (0.0004, "<0.1 %"),
        (0.0005, "0.1 %"),
        (0.9995, ">99.9 %"),
        (0.9994, "99.9 %"),
        (None, "–"),
    ],
)
def test_only_none_is_zero_and_only_all_is_a_hundred_per_cent(value, words):
    assert share(value) == words


def test_text_is_escaped_and_the_manifest_stays_in_its_element(template, tmp_path):
    manifest = {"program": "p", "arguments": {"title": "</script><b>&"}}
    write_page(tmp_path / "page.html", template, manifest=manifest, notes=["a < b"], name="<i>")
    page = (tmp_path / "page.html").read_text()
    assert "<title>&lt;i&gt;</title>" in page
    assert "<li>a &lt; b</li>" in page
    assert "<p>1,234 50.0 % -0.250 –</p>" in page
    assert page.count("</script>") == 1
    found = re.search(r'<script type="application/json" id="manifest">(.*?)</script>', page, re.S)
    assert json.loads(found[1]) == manifest


def test_a_field_that_is_missing_is_an_error(template, tmp_path):
    with pytest.raises(Exception, match="name"):
        write_page(tmp_path / "page.html", template, manifest={})
    assert not (tmp_path / "page.html").exists()


def test_a_page_is_a_file_and_no_folder(tmp_path):
    for output in (tmp_path, f"{tmp_path}/page/"):
        with pytest.raises(InputError, match="is a directory; name a file"):
            check_page(output, overwrite=True)


def test_a_page_is_not_written_into_what_it_was_made_from(tmp_path):
    (tmp_path / "labels").mkdir()
    with pytest.raises(InputError, match="lies in --labels"):
        check_page(tmp_path / "labels" / "report.html", overwrite=True, inputs={"labels": tmp_path / "labels"})
    check_page(tmp_path / "report.html", overwrite=False, inputs={"labels": tmp_path / "labels"})
