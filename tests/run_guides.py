"""Run the `program.py` of each subfolder; write their output to printed.json.

One process runs all of them, each in its folder with separate tables, because importing the library
takes longer than most of them. A program may use top-level await.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import os
import sys
import types
from pathlib import Path

from sqlmodel import SQLModel


def _printed(folder: Path) -> list[str]:
    """Run a program as if it were started in its folder."""
    file = folder / "program.py"
    code = compile(
        file.read_text(encoding="utf-8"),
        str(file),
        "exec",
        ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    # Annotations are resolved by this name.
    module = types.ModuleType(folder.name)
    sys.modules[folder.name] = module
    module.__file__ = str(file)
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.chdir(folder):
        running = eval(code, vars(module))
        if inspect.isawaitable(running):
            asyncio.run(running)
    return output.getvalue().splitlines()


def main() -> None:
    """Run the programs in order."""
    here = Path.cwd()
    printed = {}
    for folder in sorted(file.parent for file in here.glob("*/program.py")):
        sys.path.insert(0, str(folder))
        printed[folder.name] = _printed(folder)
        sys.path.remove(str(folder))
        SQLModel.metadata.clear()
        SQLModel._sa_registry.dispose()
    os.chdir(here)
    Path("printed.json").write_text(json.dumps(printed))


if __name__ == "__main__":
    main()
