import re
import xml.etree.ElementTree as ElementTree

import pytest

from crops_jax.pages.frame import WIDTH, ticks
from crops_jax.pages.histogram import histogram
from crops_jax.pages.interval_plot import Row, interval_plot
from crops_jax.pages.line_chart import Curve, line_chart
from crops_jax.pages.stacked_shares import stacked_shares


def coordinates(svg):
    return [float(x) for x in re.findall(r'(?:cx|x1|x2|x)="([-\d.]+)"', svg)]


@pytest.mark.parametrize(
    "svg",
    [
        interval_plot([Row("a <b>", 0.5, 0.4, 0.6, 0), Row("c", 0.7, 0.7, 0.7, 7)], title="Recall & more"),
        interval_plot([Row("a", 1.0, 1.0, 1.0, 0)], title="t", reference=("chance", 0.99)),
        interval_plot([Row("a", 0.0, 0.0, 0.0, 0)], title="t"),
        histogram([("x", 1_000_000), ("y", 1), ("z", 0)], title="t"),
        histogram([], title="t"),
        line_chart([Curve("a & b", [(s, 1 / s) for s in range(1, 3000)], 0), Curve("none", [], 1)], title="t"),
        line_chart([Curve("a", [(5, 2.0)], 0)], title="t"),
        line_chart([], title="t"),
        stacked_shares([("a <b>", [1, 0, 999_999]), ("none", [0, 0, 0])], parts=["x", "y & z", "w"], title="t"),
        stacked_shares([], parts=[], title="t"),
    ],
)
def test_every_chart_is_well_formed_named_and_within_its_frame(svg):
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert all(0 <= x <= WIDTH for x in coordinates(svg))
    assert "nan" not in svg


def test_wider_labels_leave_a_narrower_axis_within_the_frame():
    rows = [Row("a", 0.0, 0.0, 0.0, 0), Row("b", 1.0, 1.0, 1.0, 1)]
    for width in (122, 200):
        dots = [float(x) for x in re.findall(r'cx="([\d.]+)"', interval_plot(rows, title="t", label_width=width))]
        assert dots == [width, WIDTH - 46]
    assert interval_plot(rows, title="t") == interval_plot(rows, title="t", label_width=122)


def test_intervals_keep_their_order_along_the_axis():
    svg = interval_plot([Row("a", 0.3, 0.2, 0.4, 0), Row("b", 0.6, 0.5, 0.7, 1)], title="t")
    first, second = (float(x) for x in re.findall(r'cx="([\d.]+)"', svg))
    assert first < second


def test_a_far_reference_does_not_press_the_systems_together():
    rows = [Row("a", 0.80, 0.79, 0.81, 0), Row("b", 0.82, 0.81, 0.83, 1)]
    assert "dashed" not in interval_plot(rows, title="t", reference=("chance", 0.01))
    assert "dashed: chance" in interval_plot(rows, title="t", reference=("chance", 0.78))


def test_one_among_a_million_is_still_seen_and_none_is_not():
    widths = [
        float(w) for w in re.findall(r'width="([\d.]+)"', histogram([("a", 10**6), ("b", 1), ("c", 0)], title="t"))
    ]
    assert widths[0] > widths[1] > widths[2] == 0


def test_a_long_curve_keeps_its_last_point():
    svg = line_chart([Curve("a", [(s, float(s)) for s in range(10_000)], 0)], title="t")
    (points,) = re.findall(r'points="([^"]+)"', svg)
    assert len(points.split()) <= 402
    assert "last 9999" in svg


def test_ticks_are_round_and_hold_the_values():
    assert ticks(0.13, 0.87) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(5, 5)[0] <= 5 <= ticks(5, 5)[-1]
    with pytest.raises(ValueError, match="finite"):
        ticks(float("nan"), 1)


def test_parts_of_a_bar_fill_it_in_proportion():
    svg = stacked_shares([("a", [1, 0, 3])], parts=["x", "y", "z"], title="t")
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)" height="18"', svg)]
    assert len(widths) == 2
    assert widths[1] == pytest.approx(3 * widths[0], rel=0.01)
    assert re.findall(r">(\d+ %)<", svg) == ["25 %", "75 %"]
    assert "a, 4 in all: x 1, y 0, z 3" in svg
