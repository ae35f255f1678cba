"""Run the programs of codes.json, which await at their top level; write what they print.

One process runs them all, each with tables of its own: to import the library takes longer than most
of them.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import sys
import types
from pathlib import Path

from sqlmodel import SQLModel


async def _printed(name: str, code: str) -> list[str]:
    module = types.ModuleType(name)
    sys.modules[name] = module
    compiled = compile(code, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        # Without anything to await it is not a coroutine.
        running = eval(compiled, vars(module))
        if inspect.isawaitable(running):
            await running
    SQLModel.metadata.clear()
    SQLModel._sa_registry.dispose()
    return output.getvalue().splitlines()


def main() -> None:
    """Run each program in an event loop of its own."""
    codes = json.loads(Path("codes.json").read_text())
    printed = {name: asyncio.run(_printed(name, code)) for name, code in codes.items()}
    Path("printed.json").write_text(json.dumps(printed))


main()
