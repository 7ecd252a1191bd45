"""README.md, BUILD.md and docs/: what they name exists, and what they show is what the stored results give."""

import re

import pytest

from benchmarks.figures.comparisons import COMPARISONS
from benchmarks.figures.pages import rewritten, stale
from benchmarks.figures.registry import FIGURES, markdown
from tests.docs.markdown import PAGES, ROOT, parsed, read
from tests.docs.programs import all_flags, all_programs, calls, exists, flags, help_page, make_targets, refusal

PAGE_NAMES = [page.name for page in PAGES]
PATH = re.compile(r"(?:\.ci|benchmarks|configs|crops_jax|data|docs|launch|requirements|tests)/[\w./-]*")
MEASURED = re.compile(r"^[+-]?(?:\d{1,3}(?:,\d{3})+|\d*\.\d+|\d+ ?(?:%|s|ms|us|GB|GiB|MB))(?!\w)")


def pages():
    return pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pages()
def test_every_link_leads_to_a_file_and_a_heading(page):
    wrong = []
    for link in read(page).links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in read(target).anchors):
            wrong.append(link)
    assert not wrong


def test_every_page_of_docs_is_linked_from_the_front_page():
    linked = {link.partition("#")[0] for link in read(ROOT / "README.md").links}
    assert {f"docs/{page.name}" for page in PAGES if page.parent.name == "docs"} <= linked


@pages()
def test_every_page_that_is_named_is_there(page):
    named = set(re.findall(r"\b[\w-]+\.md\b", page.read_text()))
    assert named <= set(PAGE_NAMES)


@pages()
def test_every_program_that_a_command_calls_takes_the_flags_that_it_gives(page):
    wrong = []
    for words in read(page).command_lines:
        for call in calls(words):
            if not exists(call.module):
                wrong.append(call.module)
            elif call.flags:
                wrong += [f"{call.module} {one}" for one in set(call.flags) - flags(call.module, call.action)]
    assert not wrong


@pages()
def test_every_whole_command_is_taken_by_the_parser_of_its_program(page):
    found = [refusal(call) for words in read(page).code_lines for call in calls(words) if exists(call.module)]
    assert [one for one in found if one] == []


@pages()
def test_every_flag_that_stands_alone_is_one_of_some_program(page):
    own = re.compile(r"(--[a-z][\w.-]*)(?: .*)?")
    alone = {found[1] for code in read(page).inline_code if (found := own.fullmatch(code))}
    known = all_flags() | flags("benchmarks.figures", "store")
    assert alone - known <= {"--help", "--no-deps"}


def test_programs_of_more_than_ten_flags_show_them_in_groups():
    many = [program for program in all_programs() if len(flags(program)) > 10]
    assert len(many) > 8
    titles = {program: set(re.findall(r"^[╭─ ]+(\w+) options\b", help_page(program), re.MULTILINE)) for program in many}
    assert {program: found for program, found in titles.items() if len(found) < 2} == {}


@pages()
def test_every_target_of_make_exists(page):
    named = {
        word
        for words in read(page).command_lines
        if words[0] == "make"
        for word in words[1:]
        if "=" not in word and word.islower()
    }
    assert named <= make_targets()


@pages()
def test_no_command_is_named_that_is_not_installed(page):
    installed = "[project.scripts]" in (ROOT / "pyproject.toml").read_text()
    named = [words for words in read(page).command_lines if words[0] == "crops" and len(words) > 1]
    assert installed or not named


@pages()
def test_every_path_of_the_repository_that_is_named_exists(page):
    named = {
        path for code in read(page).inline_code for path in code.split() if PATH.fullmatch(path) and "NAME" not in path
    }
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


@pages()
def test_theta_is_introduced_as_the_relevance_discriminator(page):
    text = " ".join(page.read_text().split())
    first = re.search(r"\btheta\b", text)
    assert first is None or text[: first.end() + 1].endswith("relevance discriminator (theta)")


def test_the_pages_are_what_the_stored_results_give():
    assert [page.name for page, _ in stale(markdown)] == [], "call `make figures`"


@pages()
def test_every_table_of_measured_numbers_stands_between_markers(page):
    outside = rewritten(page.read_text(), lambda name: "", page=page.name)
    assert [cell for cell in parsed(outside).table_cells if MEASURED.match(cell)] == []


def test_every_table_that_can_be_made_is_shown():
    shown = set()
    for page in PAGES:
        rewritten(page.read_text(), lambda name: shown.add(name) or "", page=page.name)
    assert shown == {*FIGURES, *COMPARISONS}
