"""Refuse phrases that read as translated.

    python scripts/words.py [FILE ...]

It reads whole Python files, and Markdown without code blocks.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Each refused phrase, with better wording.
PHRASES = {
    r"\b(?:is|are) none\b": "is not one, is anything else",
    r"\bthere (?:is|are) none\b": "does not exist, has no",
    r"\bthat (?:is|are) there\b": "existing",
    r"\bthat (?:is|are) not there\b": "missing, unknown",
    r"\brows are there\b": "rows exist, rows are visible",
    r"\b(?:that|which|what) (?:is|was) no (?:column|field|name|number|relationship|table|row)\b": (
        "is not a"
    ),
    r"\bin any case\b": "ignoring case, or: either way",
    r"\bas ever\b": "as before, as usual",
    r"\banew\b": "again",
    r'"""Tell whether\b': "Return whether",
    r"\bspares? (?:the|a|an|you)\b": "saves, avoids",
    r"\b[Ii]nside of\b": "inside",
    r"\b[Oo]utside of\b": "outside",
    r"\bcomes? out as (?:it is|they are)\b": "propagates unchanged",
    r"\bmeans nothing certain\b": "cannot be combined",
    r"\b(?:tells?|told|telling) of\b": "reports, is notified of",
    r"\bhears? of\b": "notices, is notified of",
    r"\bbeyond (?:a|the) commit\b": "after a commit",
    r"\bnobody can tell\b": "is unknown",
    r"\bwhatever the flag says\b": "regardless of the flag",
    r"\btakes? (?:it|them|nothing) along\b": "undoes, deletes or includes too",
}
_REFUSED = re.compile("|".join(f"(?:{phrase})" for phrase in PHRASES))
_CODE = re.compile(r"(?ms)^```.*?^```$")
_FOLDERS = ("src", "scripts", "examples", "benchmarks", "tests")


def files(root: Path) -> Iterator[Path]:
    """Yield the files to check: handwritten sources, and Markdown."""
    for place in ("*.md", "docs/**/*.md", *(f"{folder}/**/*.py" for folder in _FOLDERS)):
        yield from (file for file in root.glob(place) if "_sync" not in file.parts)


def problems(name: str, text: str) -> Iterator[str]:
    """Yield each refused phrase in a text, with its line and better wording.

    Args:
        name: The name of the file; in Markdown, code blocks are skipped.
        text: Its content.
    """
    if name.endswith(".md"):
        text = _CODE.sub(lambda match: "\n" * match[0].count("\n"), text)
    # A phrase may continue on the next line, which may be a comment.
    flat = re.sub(r"\n[ \t]*(?:# )?", lambda match: "\n" + " " * (len(match[0]) - 1), text)
    for match in re.finditer(_REFUSED.pattern.replace(" ", r"\s+"), flat):
        found = " ".join(match[0].split())
        [better] = {b for phrase, b in PHRASES.items() if re.fullmatch(phrase, found)} or {""}
        line = flat.count("\n", 0, match.start()) + 1
        yield f"{name}:{line}: {found!r} reads as translated; write {better}"


def main(names: list[str]) -> int:
    """Print the refused phrases."""
    given = [Path(name).resolve() for name in names]
    found = [
        problem
        for file in given or files(ROOT)
        if file != Path(__file__).resolve() and file.name != "test_words.py"
        for problem in problems(str(file.relative_to(ROOT)), file.read_text(encoding="utf-8"))
    ]
    print("\n".join(found) or "no phrase is refused")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
