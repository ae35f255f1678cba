"""Build the documentation site: guides and API reference, with one navigation and one search.

    make docs        or        python scripts/docs.py [FOLDER]

It starts from README.md, the guides and the other Markdown files of the project, and follows their
links: each file that one of them names becomes a page. A warning, a dead link (anchors included) or
a resource from another host is an error.
"""

from __future__ import annotations

import html
import importlib.util
import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import pdoc
import pygments
from markupsafe import Markup
from pdoc import doc, render
from pdoc.render_helpers import formatter, to_html
from pdoc.search import make_index
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.special import TextLexer
from pygments.util import ClassNotFound

from sqlmodel_crud_utils._core.queries import builder

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = Path(__file__).parent / "docs_templates"
PACKAGE = "sqlmodel_crud_utils"
API = ("sync", "aio", "exceptions", "mixins", "hooks", "pagination", "ext.fastapi", "utils")
# The order to read them in; a guide that is not named here comes after these.
GUIDES = (
    "getting-started",
    "repository",
    "filters",
    "query-builder",
    "transactions",
    "errors",
    "soft-delete",
    "hooks",
    "bulk",
    "connections",
    "fastapi",
    "testing",
    "performance",
    "troubleshooting",
)
IMAGES = {".svg", ".png"}

Criterion = TypeVar("Criterion")


class BrokenSiteError(Exception):
    """What is wrong with the site, a line each."""


@dataclass(frozen=True)
class Page:
    """A file of the project as a page of the site."""

    source: PurePosixPath
    title: str
    body: str
    contents: str = ""

    @property
    def target(self) -> PurePosixPath:
        """Where it is in the site."""
        return target_of(self.source)

    @property
    def depth(self) -> int:
        """How many folders below the site's root it is."""
        return len(self.target.parts) - 1


def build(site: Path) -> None:
    """Write the site into a folder, which is emptied first.

    Raises:
        BrokenSiteError: There was a warning, or the site has a link that leads nowhere.
    """
    shutil.rmtree(site, ignore_errors=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _write(site)
    found = [f"warning: {each.message}" for each in caught]
    found += problems(site)
    if found:
        raise BrokenSiteError("\n".join(found))


def _write(site: Path) -> None:
    # An empty icon: browsers ask for one, and complain where there is none.
    render.configure(docformat="google", template_directory=TEMPLATES, favicon="data:,")
    # What SQLAlchemy's alias is made of has names only inside of SQLAlchemy.
    builder.__dict__["Criterion"] = Criterion
    modules = {name: doc.Module.from_name(name) for name in _module_names()}
    for documented in modules.values():
        _open_private_bases(documented)
    links = Links(modules)
    pages = list(_pages(links))
    texts = [page for page in pages if page.source.suffix == ".md"]
    guides = [page for page in texts if page.source.parent.as_posix() == "docs"]
    about = [page for page in texts if page.depth == 0 and page.source.name != "README.md"]
    render.env.globals["menu"] = {
        "Guides": [(page.title, page.target) for page in sorted(guides, key=_reading_order)],
        "API": [(name.removeprefix(f"{PACKAGE}."), _module_target(name)) for name in modules],
        "Project": [(page.title, page.target) for page in about],
    }
    template = render.env.get_template("page.html.jinja2")
    for page in pages:
        # pdoc's search looks at the dots in the module's name to find its way to the root.
        module = {"modulename": "." * page.depth}
        _save(site / page.target, template.render(page=page, module=module))
    for name, documented in modules.items():
        reference = _plain_types(render.html_module(documented, modules))
        target = _module_target(name)
        up = "../" * (len(target.parts) - 1)
        _save(site / target, links.named(reference, up))
    for image in (ROOT / "docs").rglob("*"):
        if image.suffix in IMAGES:
            _save(site / image.relative_to(ROOT), image.read_bytes())
    index = make_index(modules, _is_public, "google") + list(_sections(guides))
    search = render.env.get_template("search.js.jinja2").render(search_index=json.dumps(index))
    _save(site / "search.js", search)


def _module_names() -> list[str]:
    names = (f"{PACKAGE}.{name}" for name in API)
    return [name for name in names if importlib.util.find_spec(name)]


def _open_private_bases(module: doc.Module) -> None:
    """Let classes show what they have from a private base as their own: it has no page."""
    for member in module.flattened_own_members:
        if isinstance(member, doc.Class):
            shown = {*member.own_members}
            for (home, name), inherited in member.inherited_members.items():
                if _is_private(home, name):
                    shown.update(inherited)
            # pdoc works these out once and keeps them.
            own = [each for each in member.members.values() if each in shown]
            vars(member)["own_members"] = own
            vars(member)["bases"] = [base for base in member.bases if not _is_private(*base[:2])]


def _is_private(module: str, name: str) -> bool:
    return module.startswith(f"{PACKAGE}._") or name.startswith("_")


def _module_target(name: str) -> PurePosixPath:
    return PurePosixPath(f"{name.replace('.', '/')}.html")


def _reading_order(page: Page) -> tuple[int, str]:
    name = page.source.stem
    return (GUIDES.index(name) if name in GUIDES else len(GUIDES), name)


def _is_public(each: doc.Doc[Any]) -> bool:
    return not each.name.startswith("_") or each.name == "__init__"


def _save(file: Path, content: str | bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def _plain_types(page: str) -> str:
    """Show types by their own names: `Session` for `sqlalchemy.orm.session.Session`."""
    name, dot = r'<span class="n">[a-z_]\w*</span>', r'<span class="o">\.</span>'
    page = re.sub(rf'<span class="n">sqlalchemy</span>{dot}(?:{name}{dot})*', "", page)
    page = re.sub(rf'(?:{name}{dot})+(?=<span class="n">[A-Z])', "", page)
    page = re.sub(r'<span class="o">~</span>(?=<span class="n">)', "", page)
    page = re.sub(r'\s*=\s*<span class="default_value">PydanticUndefined</span>', "", page)
    # Other annotations, and base classes, are not highlighted.
    return re.sub(
        r'<span class="(?:annotation|base)">.*?</span>',
        lambda match: re.sub(r"(?<![\w./#])(?:[a-z_]\w*\.)+(?=[A-Z])|~", "", match[0]),
        page,
    )


# --- pages ---------------------------------------------------------------------------------------


def target_of(source: PurePosixPath) -> PurePosixPath:
    """Return where in the site a file of the project is."""
    if source.suffix in IMAGES:
        return source
    if (ROOT / source).is_dir():
        return source / "index.html"
    if source.name == "README.md":
        return source.with_name("index.html")
    if source.suffix == ".md":
        return source.with_suffix(".html")
    return source.with_name(f"{source.name}.html")


def _pages(links: Links) -> Iterator[Page]:
    """Yield a page for each Markdown file, and for whatever they link to."""
    roots = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
    waiting = [PurePosixPath(root.relative_to(ROOT).as_posix()) for root in roots]
    seen = set(waiting)
    for source in waiting:
        page, others = _page(source, links)
        new = [other for other in dict.fromkeys(others) if other not in seen]
        waiting += new
        seen |= set(new)
        if page is not None:
            yield page


def _page(source: PurePosixPath, links: Links) -> tuple[Page | None, list[PurePosixPath]]:
    file = ROOT / source
    if file.suffix in IMAGES:
        return None, []
    if file.suffix != ".md" and file.is_file():
        return Page(source, source.name, _program(file)), []
    text = file.read_text(encoding="utf-8") if file.is_file() else _listing(file)
    converted = to_html(text)
    body, others = links.of(source, converted)
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", converted)
    title = html.unescape(re.sub(r"<.*?>", "", heading[1])) if heading else source.name
    contents = getattr(converted, "toc_html", None) or ""
    return Page(source, title, Markup(body), Markup(contents)), others


def _program(file: Path) -> Markup:
    code = file.read_text(encoding="utf-8")
    try:
        lexer = get_lexer_for_filename(file.name)
    except ClassNotFound:
        lexer = TextLexer()
    formatter.linespans = "L"
    formatter.linenostart = 1
    name = file.relative_to(ROOT).as_posix()
    return Markup(f"<h1>{html.escape(name)}</h1>{pygments.highlight(code, lexer, formatter)}")


def _listing(folder: Path) -> str:
    names = sorted(each.name for each in folder.iterdir() if not each.name.startswith(("_", ".")))
    return "\n".join([f"# {folder.name}", "", *(f"- [{name}]({name})" for name in names)])


class Links:
    """What links in a Markdown file become: pages of the site, and the API where code names it."""

    def __init__(self, modules: Mapping[str, doc.Module]) -> None:
        self._api: dict[str, str] = {}
        for fullname, module in modules.items():
            short = fullname.removeprefix(f"{PACKAGE}.")
            self._api[fullname] = self._api.setdefault(short, str(_module_target(fullname)))
            for member in _described(module):
                link = f"{_module_target(fullname)}#{member.qualname}"
                names = [f"{fullname}.{member.qualname}", f"{short}.{member.qualname}"]
                names.append(f"a_{member.qualname}" if short == "aio" else member.qualname)
                for name in names:
                    self._api.setdefault(name, link)

    def of(self, source: PurePosixPath, body: str) -> tuple[str, list[PurePosixPath]]:
        """Return the body with its links mended, and the files that it links to."""
        others: list[PurePosixPath] = []
        folder = source if (ROOT / source).is_dir() else source.parent
        up = "../" * (len(target_of(source).parts) - 1)

        def mended(match: re.Match[str]) -> str:
            link = urlsplit(html.unescape(match[2]))
            if link.scheme or link.netloc or not link.path:
                return match[0]
            path = PurePosixPath(os.path.normpath(folder / unquote(link.path)))
            if path.parts[0] == ".." or not (ROOT / path).exists():
                raise BrokenSiteError(f"{source}: {link.path} is not there")
            if (ROOT / path / "README.md").is_file():
                path /= "README.md"
            others.append(path)
            anchor = f"#{link.fragment}" if link.fragment else ""
            return f'{match[1]}="{up}{target_of(path)}{anchor}"'

        return self.named(re.sub(r'\b(href|src)="([^"]*)"', mended, body), up), others

    def named(self, body: str, up: str) -> str:
        """Return the body with links from code that names something to its description.

        Args:
            body: HTML. What is a link already, or a heading, stays as it is; so do blocks of code.
            up: The way to the root of the site.
        """

        def linked(match: re.Match[str]) -> str:
            place = self._api.get(match["name"] or "")
            return f'<a href="{up}{place}">{match[0]}</a>' if place else match[0]

        code = r"<code>(?P<name>[A-Za-z_][\w.]*)(?:\([^<]*\))?</code>"
        return re.sub(rf"(?s)<(a|pre|h\d)\b.*?</\1>|{code}", linked, body)


def _described(module: doc.Module) -> Iterator[doc.Doc[Any]]:
    for member in module.flattened_own_members:
        if _is_public(member):
            yield member
        if isinstance(member, doc.Class):
            yield from (each for each in member.own_members if not each.name.startswith("_"))


def _sections(guides: list[Page]) -> Iterator[dict[str, str]]:
    """Yield what the search knows about the guides: an entry for each of their sections."""
    for page in guides:
        name = str(page.target.with_suffix(""))
        parts = re.split(r'<h2 id="([^"]*)">(.*?)</h2>', page.body)
        yield {"fullname": page.title, "modulename": name, "kind": "guide", "doc": parts[0]}
        for anchor, heading, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            title = html.unescape(re.sub(r"<.*?>", "", heading))
            yield {
                "fullname": f"{page.title}: {title}",
                "modulename": name,
                "qualname": anchor,
                "kind": "guide",
                "doc": text,
            }


# --- checks --------------------------------------------------------------------------------------


class _Scan(HTMLParser):
    """The anchors of a page, where it links to, and what a browser loads with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name == "id":
                self.anchors.add(value)
            elif name == "href" and tag == "a":
                self.links.append(value)
            elif name in {"src", "href"}:
                self.loads.append(value)


def problems(site: Path) -> Iterator[str]:
    """Yield the dead links of a site, and what it loads from elsewhere."""
    scans = {
        file.relative_to(site).as_posix(): _Scan(file.read_text(encoding="utf-8"))
        for file in sorted(site.rglob("*.html"))
    }
    for name, scan in scans.items():
        for address in scan.loads:
            parts = urlsplit(address)
            if parts.scheme not in {"", "data"} or parts.netloc:
                yield f"{name}: loads {address}"
            elif not parts.scheme and not (site / name).parent.joinpath(parts.path).is_file():
                yield f"{name}: loads {address}, which is not there"
        for address in dict.fromkeys(scan.links):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            path = os.path.normpath(PurePosixPath(name).parent / parts.path) if parts.path else name
            if path not in scans:
                yield f"{name}: there is no page {address}"
            elif parts.fragment and unquote(parts.fragment) not in scans[path].anchors:
                yield f"{name}: there is no anchor {address}"


def main() -> int:
    """Build the site; say what is wrong with it."""
    site = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "site"
    try:
        build(site)
    except BrokenSiteError as error:
        print(error, file=sys.stderr)
        return 1
    pages = sum(1 for _ in site.rglob("*.html"))
    print(f"{pages} pages, made with pdoc {pdoc.__version__}: open {site / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
