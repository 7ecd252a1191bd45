"""The picture of several charts: whole XML with its own colours, and charts in rows that do not overlap."""

import xml.etree.ElementTree as ElementTree

import pytest

from crops_jax.pages.frame import frame
from crops_jax.pages.histogram import histogram
from crops_jax.pages.standalone import standalone

SVG = "{http://www.w3.org/2000/svg}"
CHARTS = [(f"Chart <{n}>", frame([], height=100 + n, title="t", description="d")) for n in range(5)]


def test_charts_stand_in_rows_below_their_headings():
    picture = ElementTree.fromstring(standalone(CHARTS, title="A title", note="A note", columns=3))
    charts = [element for element in picture if element.tag == f"{SVG}svg"]
    assert [element.get("height") for element in charts] == ["100", "101", "102", "103", "104"]
    places = [(float(element.get("x", "")), float(element.get("y", ""))) for element in charts]
    assert [x for x, _ in places] == [16, 408, 800, 16, 408]
    assert places[0][1] == places[2][1]
    assert places[3][1] >= places[0][1] + 102
    assert float(picture.get("height", "")) >= places[4][1] + 104
    texts = [element.text for element in picture if element.tag == f"{SVG}text"]
    assert texts == ["A title", "A note", *(f"Chart <{n}>" for n in range(5))]


def test_the_colours_of_light_and_dark_are_in_the_file():
    picture = standalone([("Bars", histogram([("one", 1)], title="bars"))], title="t", note="n")
    assert "prefers-color-scheme: dark" in picture
    for name in ("--ink", "--card", "--series-1", "--quiet"):
        assert f"{name}:" in picture
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")


def test_something_else_is_no_chart():
    with pytest.raises(ValueError, match="no chart"):
        standalone([("a", "<svg/>")], title="t", note="n")
    with pytest.raises(ValueError, match="at least one chart"):
        standalone([], title="t", note="n")
