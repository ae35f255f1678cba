"""The API reference: Markdown pages made from what pdoc reads in the package.

A topic's page describes functions of both APIs once; differences are shown in two tabs.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from textwrap import indent
from typing import Any, TypeAlias

from pdoc import doc, docstrings

import sqlmodel_crud_utils
from sqlmodel_crud_utils._async import repository as async_repository
from sqlmodel_crud_utils._core.queries import builder
from sqlmodel_crud_utils._sync import repository as sync_repository

AnyDoc: TypeAlias = doc.Doc[Any]
PACKAGE = sqlmodel_crud_utils.__name__
# The names shared by `sync` and `aio`, by topic; unlisted names follow at the end.
TOPICS = {
    "Reading": ("get_row", "get_rows", "get_rows_within_id_list", "get_result_from_query"),
    "Writing": (
        "write_row",
        "update_row",
        "delete_row",
        "get_one_or_create",
        "insert_data_rows",
        "InsertOutcome",
    ),
    "Many rows": (
        "bulk_insert_rows",
        "bulk_upsert_mappings",
        "UpsertCounts",
        "bulk_update_rows",
        "delete_rows_within_id_list",
    ),
    "Repository": ("Repository",),
    "Query builder": ("QueryBuilder", "Page", "CursorPage"),
    "Soft delete": ("soft_delete_row", "restore_row", "purge_rows"),
    "Transactions": ("transaction", "on_commit", "run_transaction", "is_transient"),
    "Replicas": ("use_primary", "read_after", "replication_token"),
    "Connections": (
        "create_pooled_engine",
        "session_factory",
        "get_session",
        "pool_status",
        "PoolStatus",
    ),
}
REST = "Further functions"
# `a_sync` is the old name of `aio`; both APIs export the names in `results`.
_NO_PAGES = {"a_sync", "aio", "sync", "results"}


@dataclass
class Reference:
    """The pages of the reference.

    Attributes:
        pages: Their Markdown, by place in the site.
        places: The page and anchor that describe a name, by every form of the name.
    """

    pages: dict[str, str]
    places: dict[str, str]


def read() -> Reference:
    """Read the package, and create the pages of its reference."""
    # SQLAlchemy's alias refers to names that exist only inside SQLAlchemy.
    for home in (builder, sync_repository, async_repository):
        vars(home)["Criterion"] = typing.TypeVar("Criterion")  # pyright: ignore[reportGeneralTypeIssues]
    reference = Reference({}, {})
    sync, aio = (_module(f"{PACKAGE}.{name}") for name in ("sync", "aio"))
    for topic, names in _topics(sync).items():
        pairs = [(sync.members[n], aio.members.get(f"Async{n}", aio.members[n])) for n in names]
        _add_topic(reference, topic, pairs)
    for name in _shared_modules():
        module = _module(name)
        short = name.removeprefix(f"{PACKAGE}.")
        members = [each for each in module.members.values() if _is_public(each)]
        body = "\n\n".join(_member(each) for each in members)
        page = f"reference/{short}.md"
        reference.pages[page] = f"# {short}\n\n{module.docstring}\n\n`import {name}`\n\n{body}\n"
        reference.places[name] = reference.places[short] = page
        for each in _all_members(members):
            _place(reference, page, each, short)
    return reference


def _topics(sync: doc.Module) -> dict[str, list[str]]:
    found = {topic: [n for n in names if n in sync.members] for topic, names in TOPICS.items()}
    listed = {name for names in found.values() for name in names}
    rest = [name for name in sync.members if name not in listed]
    return found | ({REST: rest} if rest else {})


def _add_topic(reference: Reference, topic: str, pairs: list[tuple[AnyDoc, AnyDoc]]) -> None:
    page = f"reference/{topic.lower().replace(' ', '-')}.md"
    imports = (
        f"Import these names from `{PACKAGE}.sync` or `{PACKAGE}.aio`. At the top level of the "
        "package the sync functions have their plain names, the async ones the prefix `a_`."
    )
    body = "\n\n".join(_member(*pair) for pair in pairs)
    reference.pages[page] = f"# {topic}\n\n{imports}\n\n{body}\n"
    for sync, aio in pairs:
        for one, other in zip(_all_members([sync]), _all_members([aio]), strict=True):
            place = _place(reference, page, one, "sync")
            for name in (other.qualname, f"a_{one.qualname}"):
                reference.places.setdefault(name, place)
            for name in (f"aio.{one.qualname}", f"aio.{other.qualname}"):
                reference.places.setdefault(name, place)


def _place(reference: Reference, page: str, member: AnyDoc, module: str) -> str:
    place = f"{page}#{member.qualname}"
    for name in (member.qualname, f"{module}.{member.qualname}", member.fullname):
        reference.places.setdefault(name, place)
    return place


def _module(name: str) -> doc.Module:
    module = doc.Module.from_name(name)
    for exported in module.obj.__all__:
        getattr(module.obj, exported)  # names that the module loads on first use
    for member in module.flattened_own_members:
        if isinstance(member, doc.Class):
            _open_private_bases(member)
    return module


def _open_private_bases(member: doc.Class) -> None:
    """Show members of private bases as a class's own, because the bases have no page."""
    shown = {*member.own_members}
    for (home, name), inherited in member.inherited_members.items():
        if home.startswith(f"{PACKAGE}._") or name.startswith("_"):
            shown.update(inherited)
    # pdoc caches this.
    vars(member)["own_members"] = [each for each in member.members.values() if each in shown]


def _shared_modules() -> Iterator[str]:
    extensions = importlib.import_module(f"{PACKAGE}.ext")
    for home in (sqlmodel_crud_utils, extensions):
        for module in pkgutil.iter_modules(home.__path__, f"{home.__name__}."):
            name = module.name.rpartition(".")[2]
            if not name.startswith("_") and name not in {*_NO_PAGES, "ext"}:
                yield module.name


def _is_public(member: AnyDoc) -> bool:
    return not member.name.startswith("_")


def _all_members(members: list[AnyDoc]) -> Iterator[AnyDoc]:
    for member in members:
        yield member
        if isinstance(member, doc.Class):
            yield from _own(member)


def _own(member: doc.Class) -> list[AnyDoc]:
    return [each for each in member.own_members if _is_public(each) and each.docstring]


# --- Markdown ------------------------------------------------------------------------------------


def _member(sync: AnyDoc, aio: AnyDoc | None = None, level: str = "##") -> str:
    """Return the description of a name, once for both APIs."""
    parts = [f"{level} `{sync.name}` {{ #{sync.qualname} }}"]
    described, example = _description(sync)
    if aio is None:
        parts += [_code(sync), described, example]
    else:
        _, other = _description(aio)
        parts += [_tabs(_code(sync), _code(aio)), described, _tabs(example, other)]
    if isinstance(sync, doc.Class):
        others = (
            dict(zip(_names(sync), _own(aio), strict=True)) if isinstance(aio, doc.Class) else {}
        )
        parts += [_member(each, others.get(each.name), f"{level}#") for each in _own(sync)]
    return "\n\n".join(part for part in parts if part)


def _names(member: doc.Class) -> list[str]:
    return [each.name for each in _own(member)]


def _tabs(sync: str, aio: str) -> str:
    if sync == aio:
        return sync
    return f'=== "Sync"\n\n{indent(sync, "    ")}\n\n=== "Async"\n\n{indent(aio, "    ")}'


def _code(member: AnyDoc) -> str:
    """Return a declaration as a code block."""
    if isinstance(member, doc.Function):
        text = "\n\n".join(_signatures(member))
    elif isinstance(member, doc.Class):
        bases = ", ".join(name for _, _, name in member.bases if not _is_private(name))
        text = f"class {member.name}({bases})" if bases else f"class {member.name}"
        constructor = member.members.get("__init__")
        if not bases and isinstance(constructor, doc.Function):
            text += _head(constructor.signature_without_self).partition(" -> ")[0]
    elif isinstance(member, doc.Variable):
        text = f"{member.name}{member.annotation_str}"
    else:
        raise TypeError(member)
    return f"```python\n{plain_types(text)}\n```"


def _is_private(base: str) -> bool:
    return base.startswith(f"{PACKAGE}._") or base.rpartition(".")[2].startswith("_")


def _signatures(function: doc.Function) -> Iterator[str]:
    overloads: list[Any] = [*typing.get_overloads(inspect.unwrap(function.obj))]
    forms = [
        doc.Function(function.modulename, function.qualname, each, function.taken_from)
        for each in overloads
    ]
    for form in forms or [function]:
        yield f"{function.funcdef} {function.name}{_head(form.signature)}"


def _head(signature: inspect.Signature) -> str:
    hidden = [p.replace(default=p.empty) for p in signature.parameters.values()]
    shown = [
        bare if repr(p.default).startswith(("<", "Pydantic")) else p
        for p, bare in zip(signature.parameters.values(), hidden, strict=True)
    ]
    return str(signature.replace(parameters=shown))


def plain_types(text: str) -> str:
    """Show types by their own names: `Session` for `sqlalchemy.orm.session.Session`."""
    text = re.sub(r"\bsqlalchemy\.(?:\w+\.)*(?=\w)|(?:\b[a-z_]\w*\.)+(?=[A-Z])|~", "", text)
    text = re.sub(r"\bOptional\[(\w+)\]", r"\1 | None", text)
    return re.sub(r"\bUnion\[(\w+), (\w+)\[Any\]\]", r"\1 | \2", text)


def _description(member: AnyDoc) -> tuple[str, str]:
    """Return the text of a docstring, and its example."""
    text = docstrings.convert(member.docstring, "google", None)
    described, _, example = text.partition("###### Example:\n")
    described = re.sub(r"^###### (.*):$", r"**\1**{ .section }\n", described, flags=re.MULTILINE)
    described = re.sub(r"^ - \*\*(.*?):\*\*  ", r"- `\1`: ", described, flags=re.MULTILINE)
    return _unquoted(described).strip(), _sessions(_unquoted(example)).strip()


def _unquoted(text: str) -> str:
    return re.sub(r"^> ?", "", text, flags=re.MULTILINE)


def _sessions(text: str) -> str:
    """Put a fence around each interactive session."""
    return re.sub(
        r"^>>> .*(?:\n(?!$).*)*",
        lambda match: f"```pycon\n{match[0]}\n```",
        text,
        flags=re.MULTILINE,
    )


def headings(pages: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the title and place of each page."""
    for page, text in pages.items():
        yield text.partition("\n")[0].removeprefix("# "), page
