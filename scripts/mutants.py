"""Take the rules of tenancy away one at a time; a test has to fail for each.

    python scripts/mutants.py

It prints those that survive, and ends with their number. A run takes some minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ["tests/_async/test_tenancy.py", "tests/_async/test_tenant_leaks.py"]
TENANTS, TENANCY, SCOPES = (
    "_session/tenants.py",
    "_core/visibility/tenancy.py",
    "_core/values/tenants.py",
)

# What is changed in which module of the package, and into what.
MUTANTS = [
    (TENANCY, "rows.tenant_id == tenant_parameter(rows.tenant_id.type)", "rows.tenant_id != ''"),
    (TENANCY, "everywhere=True", "everywhere=False"),
    (TENANCY, "is_lifted=all_in_scope", "is_lifted=None"),
    (TENANCY, "is_sql(given) or ", ""),
    (TENANCY, "given != tenant_of_new_row()", "False"),
    (TENANCY, "return column == func.coalesce(", "return column != func.coalesce('', "),
    (TENANCY, "raw=bool(texts)", "raw=False"),
    (TENANCY, " or any(map(_names_table, texts))", ""),
    (TENANCY, " or _refusal_of_joins(statement, models)", ""),
    (TENANCY, "if element.name in _names_of_tables()", "if False"),
    (TENANCY, "return not ignores or not prefixes", "return not prefixes"),
    (TENANCY, "return not ignores or not prefixes <=", "return not ignores or None is"),
    (TENANCY, "_is_tenant(column) for column in _assigned(element)", "False for _ in ()"),
    (TENANCY, "statement._select_names or ()", "()"),
    (TENANCY, "for rows in statement._multi_values", "for rows in ()"),
    (TENANCY, "yield statement._values or {}", "yield {}"),
    (TENANCY, "else parameters or ()", "else ()"),
    (TENANTS, "elif bound[0] != scope:", "elif False:"),
    (TENANTS, "bound[1] is not session.identity_map:", "False:"),
    (TENANTS, "if reach.names and in_scope() is None:", "if False:"),
    (TENANTS, "serve_model(session, None if mapper is None else mapper.class_)", "pass"),
    (TENANTS, "if reach.refusal is not None:", "if False:"),
    (TENANTS, "check_parameters(statement, execution.parameters)", "pass"),
    (TENANTS, "            check_row(row)", "            pass"),
    (TENANTS, "state.committed_state[TENANT] != given", "False"),
    (TENANTS, "    _check_related(state)", "    pass"),
    (TENANTS, "if given is None and related.key is not None:", "if False:"),
    (TENANTS, "if given is not None and given != own:", "if False:"),
    (SCOPES, "if isinstance(tenant, kind):", "if True:"),
    (SCOPES, "if isinstance(found, _All):", "if False:"),
    ("_session/model_events.py", ".where(flush_criterion(table.c[TENANT]))", ""),
    ("_session/events.py", "if execution.is_column_load:", "if False:"),
    ("_core/writes/shapes.py", "if belongs_to_tenants(self._model)", "if False"),
    ("_core/writes/upsert_rows.py", "give_tenant(target.model, values)", "pass"),
    ("_core/writes/upserts.py", "where = and_(*criteria) if criteria else None", "where = None"),
    ("_core/writes/updates.py", "check_changes(model, changes)", "pass"),
]


def main() -> int:
    """Run the tests on each mutant, and return how many survive."""
    survivors = [mutant for mutant in MUTANTS if _survives(*mutant)]
    for module, old, new in survivors:
        print(f"SURVIVES {module}: {old!r} -> {new!r}")
    print(f"{len(MUTANTS) - len(survivors)} of {len(MUTANTS)} mutants are killed")
    return len(survivors)


def _survives(module: str, old: str, new: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "sqlmodel_crud_utils"
        shutil.copytree(ROOT / "src" / package.name, package)
        file = package / module
        text = file.read_text(encoding="utf-8")
        if old not in text:
            raise SystemExit(f"{module} has no {old!r}: bring the list up to date")
        file.write_text(text.replace(old, new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider"]
        run = subprocess.run(
            [*command, "--databases", "sqlite", *TESTS],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": folder},
            capture_output=True,
            check=False,
        )
    return run.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
