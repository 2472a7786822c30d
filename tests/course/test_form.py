"""What each notebook of the course has: a head, exercises, links that lead on, references."""

import re

import pytest

from .stored import COURSE, NOTEBOOKS, exercises, headings, links, markdown, read

each_notebook = pytest.mark.parametrize("name", COURSE)
# Not in the numbered order, and without exercises: tools that the course links to.
TOOLS = {"laboratory"}


def test_all_of_the_course_is_here_and_nothing_else():
    found = {path.stem for path in NOTEBOOKS.glob("*.ipynb")}
    assert found - set(COURSE) <= TOOLS
    assert set(COURSE) <= found


@each_notebook
def test_opens_with_what_is_learned_needed_and_how_long_it_takes(name):
    head = "\n".join(cell.source for cell in read(name).cells[:2])
    for words in ("**You will learn**", "**You need**", "**Time:**"):
        assert words in head
    assert re.search(r"\*\*Time:\*\*[^.]*\d+ minutes", head)


@each_notebook
def test_has_four_exercises_from_easy_to_a_project(name):
    there = exercises(name)
    assert len(there) >= 4
    found = headings(read(name))
    checked = [exercise.name for exercise in there]
    # A project may stand without a check; every check has its heading, in order.
    assert [number for number, _, _ in found if number in checked] == checked
    levels = {level for _, level, _ in found if level}
    assert len(levels) >= 2 and any("project" in level for level in levels)


@each_notebook
def test_asks_for_a_prediction_and_scores_it(name):
    code = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "code")
    assert "course.Prediction(" in code and ".score(" in code


@each_notebook
def test_links_back_and_on_and_every_link_leads_somewhere(name):
    found = [link for link in links(markdown(read(name))) if "://" not in link]
    files = {link.partition("#")[0] for link in found} - {""}
    place = COURSE.index(name)
    neighbours = COURSE[max(0, place - 1) : place] + COURSE[place + 1 : place + 2]
    assert {f"{neighbour}.ipynb" for neighbour in neighbours} <= files
    missing = {file for file in files if not (NOTEBOOKS / file).exists()}
    assert not missing


@each_notebook
def test_ends_with_references(name):
    assert re.search(r"^#+ References", markdown(read(name)), re.MULTILINE)


@each_notebook
def test_stores_what_can_be_compared(name):
    notebook = read(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "widgets" not in notebook.metadata and notebook.metadata.kernelspec.name == "python3"
    assert "setup" in code[0].metadata.get("tags", [])
    ignored = [c for c in code if "nbval-ignore-output" in c.metadata.get("tags", [])]
    assert len(ignored) <= 0.2 * len(code)
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
