"""Phrases that read as translated are refused by `make lint`."""

from __future__ import annotations

import pytest

from scripts import words


@pytest.mark.parametrize(
    "text",
    [
        "a name that is none is refused",
        "None if there is none",
        "the rows that are there",
        "a row that is not there raises",
        "it is this, in any case",
        "limited as ever",
        "queried anew",
        '"""Tell whether it holds."""',
        "this spares a query",
        "an event tells of the commit",
        "it hears of each write",
        "kept beyond the commit",
        "nobody can tell",
    ],
)
def test_what_is_refused(text: str) -> None:
    """The place is named, and what says the same."""
    [problem] = words.problems("a.py", f"x = 1\n{text}\n")
    assert problem.startswith("a.py:2: ")
    assert "; write " in problem


@pytest.mark.parametrize(
    "text",
    ["none of these is it", "spare me", "whether that is the case", "none", "This is not anewly"],
)
def test_what_is_not_refused(text: str) -> None:
    """Words that only look like it."""
    assert list(words.problems("a.py", text)) == []


def test_a_phrase_may_go_on_in_the_next_line() -> None:
    """Also in a comment; its first line is reported."""
    assert len(list(words.problems("a.py", "    # rows that\n    # are there\n"))) == 1
    [problem] = words.problems("a.md", "first\na name that\nis none.\n")
    assert problem.startswith("a.md:3: ")


def test_code_in_markdown_is_not_read() -> None:
    """Lines keep their numbers."""
    text = "```python\nprint('queried anew')\n```\nqueried anew\n"
    assert [each.partition(" ")[0] for each in words.problems("a.md", text)] == ["a.md:4:"]


def test_what_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Handwritten sources, tests and guides."""
    found = list(words.files(words.ROOT))
    assert words.ROOT / "README.md" in found
    assert not any("_sync" in file.parts for file in found)
    assert words.main([str(words.ROOT / "README.md")]) == 0
    assert capsys.readouterr().out == "no phrase is refused\n"
