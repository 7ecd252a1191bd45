"""Only what stands between markers is rewritten, and a marker without its counterpart is named."""

import pytest

from benchmarks.figures.pages import pages, rewritten, stale
from benchmarks.figures.results import FiguresError

PAGE = """# Title

<!-- figures: demo -->
an old table
<!-- end -->

Text with <!-- figures: demo --> inside a line.

    <!-- figures: demo -->
"""


def markdown(name: str) -> str:
    if name != "demo":
        raise FiguresError(f"there are no figures {name!r}")
    return "| new |\n| --- |"


def test_what_stands_between_markers_is_replaced_and_nothing_else():
    new = rewritten(PAGE, markdown, page="page.md")
    assert new == PAGE.replace("an old table", "\n| new |\n| --- |\n")
    assert rewritten(new, markdown, page="page.md") == new


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n<!-- figures: demo -->\nb\n", r"page\.md, line 2: the figures have no <!-- end -->"),
        ("<!-- end -->\n", r"page\.md, line 1: <!-- end --> without a marker before it"),
        (
            "<!-- figures: demo -->\n<!-- figures: demo -->\n<!-- end -->\n",
            r"page\.md, line 2: the figures of line 1 have no",
        ),
        ("<!-- figures: nothing -->\n<!-- end -->\n", r"page\.md, line 1: there are no figures 'nothing'"),
    ],
)
def test_wrong_markers_are_named_with_their_line(text, message):
    with pytest.raises(FiguresError, match=message):
        rewritten(text, markdown, page="page.md")


def test_stale_pages_are_found_in_the_root_and_in_docs(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(PAGE)
    (tmp_path / "docs" / "one.md").write_text(rewritten(PAGE, markdown, page="one.md"))
    assert [file.name for file in pages(tmp_path)] == ["README.md", "one.md"]
    assert [file.name for file, _ in stale(markdown, root=tmp_path)] == ["README.md"]
