"""The glossary and the instructor's page: their links lead on, and what they say is so."""

import re

import pytest

from kdlab import course

from .stored import COURSE, NOTEBOOKS, links, read

GLOSSARY = (NOTEBOOKS / "glossary.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in GLOSSARY.splitlines()
    if line.startswith("| ") and not line.startswith("| term")
]


@pytest.mark.parametrize("page", ["glossary", "instructor"])
def test_links_lead_somewhere(page):
    files = {link.partition("#")[0] for link in links((NOTEBOOKS / f"{page}.md").read_text())}
    missing = {f for f in files if "://" not in f and not (NOTEBOOKS / f).exists()}
    assert not missing


def test_terms_are_in_order_and_have_chinese_and_a_meaning():
    terms = [row[0].lower() for row in ROWS]
    spelled = [term.replace("α", "alpha").replace("β", "beta").replace("²", "") for term in terms]
    assert len(ROWS) >= 30 and spelled == sorted(spelled)
    for _, chinese, meaning, _ in ROWS:
        assert re.search(r"[\u4e00-\u9fff]", chinese) and meaning.endswith((".", ")"))


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_term_is_used_where_the_glossary_says(row):
    term = row[0].split(" (")[0].lower().removesuffix(" t").removesuffix(" scaling")
    for link in links(row[3]):
        name = link.removesuffix(".ipynb")
        text = "\n".join(cell.source for cell in read(name).cells).lower().replace("-", " ")
        for tex, letter in (("\\alpha", "α"), ("\\beta", "β"), ("t^2", "t²")):
            text = text.replace(tex, letter)
        assert term.replace("-", " ") in text, f"{term} in {name}"


def test_the_instructor_is_told_what_every_exercise_trains():
    page = (NOTEBOOKS / "instructor.md").read_text()
    rows = dict(re.findall(r"^\| (\d+\.\d+) \| ([^|]+?) \| [^|]+ \|$", page, re.MULTILINE))
    assert rows == course.registered()


def test_the_instructor_has_a_section_for_every_notebook():
    sections = re.findall(r"^### (\d\d) ", (NOTEBOOKS / "instructor.md").read_text(), re.MULTILINE)
    assert sections == [name[:2] for name in COURSE]
