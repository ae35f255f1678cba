"""Remove rules from the package one at a time; a test must fail for each.

    python scripts/mutants.py             # all of them
    python scripts/mutants.py tenancy     # of one group

It prints the mutants that survive, and exits with their number. Each group takes some minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TENANTS, TENANCY, SCOPES = (
    "_session/tenant_of_session.py",
    "_core/visibility/tenancy.py",
    "_core/values/current_tenant.py",
)
HIDDEN = "_core/visibility/hidden_tables.py"
ROW_SECURITY, POLICIES = "_session/row_security_engines.py", "_core/visibility/row_security.py"
NEW_ROW, NEW_ROWS, SHAPES, UPSERTS = (
    "_shortcuts/new_row.py",
    "_shortcuts/new_rows.py",
    "_core/writes/shapes.py",
    "_core/writes/upsert_rows.py",
)
REFUSED_VALUES = "_core/errors/refused_values.py"
PARAMETERS, PAYLOAD = "_core/parameters.py", "_core/values/payload.py"
READERS, BY_KEY = "_core/values/readers.py", "_shortcuts/by_key.py"
STATEMENTS, BUILDER = "_core/queries/select_statements.py", "_core/queries/builder.py"
DRIVER_ERRORS, TRANSIENT = "_core/errors/driver_errors.py", "_core/errors/transient.py"
KEPT_ROWS = "_session/kept_rows.py"
OPERATIONS, BLOCKS = "_async/_running/operations.py", "_async/_running/block_levels.py"

# For each mutant: the module of the package, the code, and its replacement.
TENANCY_MUTANTS = [
    (TENANCY, "rows.tenant_id == tenant_parameter(rows.tenant_id.type)", "rows.tenant_id != ''"),
    (TENANCY, "everywhere=True", "everywhere=False"),
    (TENANCY, "is_lifted=all_in_scope", "is_lifted=None"),
    (TENANCY, "given != tenant_of_new_row()", "False"),
    (TENANCY, "return column == func.coalesce(", "return column != func.coalesce('', "),
    (TENANCY, "raw=bool(texts)", "raw=False"),
    (TENANCY, " or any(map(_names_table, texts))", ""),
    (TENANCY, "links=_refusal_of_links(statement, models)", "links=None"),
    (TENANCY, "if element.name.lower() in _names_of_tables()", "if False"),
    (TENANCY, "return not ignores or not prefixes_of", "return not prefixes_of"),
    (TENANCY, "or not prefixes_of(statement) <=", "or None is"),
    (TENANCY, "any(map(_is_tenant, _assigned(statement)))", "False"),
    (TENANCY, "selected_into(statement)", "()"),
    (TENANCY, "for rows in rows_of(statement)", "for rows in ()"),
    (TENANCY, "and not _HARMLESS.fullmatch(element.name)", "and False"),
    (TENANCY, "yield from filter(_names_table, texts_around(element))", "yield from ()"),
    (TENANCY, "(_refusal_of_full_joins(elements) if names else None)", "None"),
    (TENANCY, "and has_bare_join(element, _rules())", "and False"),
    (TENANCY, 'isinstance(table, Alias) and "parententity" in notes_of(table)', "False"),
    (TENANCY, "isinstance(each, CTE) and concerns", "False and concerns"),
    (
        TENANCY,
        "if any(concerns(criterion, _rules()) for criterion in",
        "if any(False for criterion in",
    ),
    (TENANCY, "isinstance(each, Select) and concerns(each, _rules())", "False"),
    (TENANCY, "and not value.required", ""),
    (TENANCY, "if reach_of(value).raw or _reads_rows(value):", "if _reads_rows(value):"),
    (TENANCY, "if reach_of(value).raw or _reads_rows(value):", "if reach_of(value).raw:"),
    (TENANCY, "any(map(_reads_rows, unvisited_sql_of(element)))", "False"),
    (TENANCY, 'if "bundle" in notes_of(element) and', "if False and"),
    (TENANCY, "if not is_table and any(", "if False and any("),
    (TENANCY, "conditions = (relationship.primaryjoin, relationship", "conditions = (relationship"),
    (TENANCY, "(*given, *(relationship.order_by or ()))", "given"),
    (TENANCY, "or _refusal_of_defaults(element.table)", ""),
    (TENANCY, "(refusal := _refusal_of_defaults(table))", "(refusal := None)"),
    (TENANCY, "map(_refusal_of_defaults, mapper.tables)", "()"),
    (TENANCY, "in (column.default, column.onupdate)", "in (column.default,)"),
    (TENANCY, "in (column.default, column.onupdate)", "in (column.onupdate,)"),
    (TENANCY, "if any(_names_table(text) for each", "if any(False for each"),
    (TENANTS, "(state.key is None or TENANT in state.committed_state)", "state.key is None"),
    (HIDDEN, "_unbundled(column.clauses) if", "() if"),
    (
        HIDDEN,
        "isinstance(table, AliasedReturnsRows | Values)",
        "isinstance(table, AliasedReturnsRows)",
    ),
    (TENANCY, "or _refusal_of_inserts_inside(statement, elements)", ""),
    (HIDDEN, "_criterion(_first(join.right), rules)", "_criterion(join.right, rules)"),
    (HIDDEN, "else _criterion(_first(target), rules)", "else _criterion(target, rules)"),
    (HIDDEN, "for value in unvisited_sql_of(element):", "for value in ():"),
    (TENANTS, "if not is_callers(execution.execution_options):", "if True:"),
    (
        TENANTS,
        "        check_parameters(statement, execution.parameters)\n        if",
        "        if",
    ),
    (TENANTS, "if reach.refusal == FIXED:", "if False:"),
    (TENANTS, "if is_sql(value):", "if False:"),
    (TENANTS, "before is LoaderCallableStatus.NO_VALUE", "False"),
    ("_session/events.py", "if isinstance(execution.statement, FunctionElement):", "if False:"),
    ("_core/queries/conditions.py", "foreign=bool(sql)", "foreign=False"),
    ("_core/queries/ordering.py", "hide_in_tables(term.expression, visibility)", "term.expression"),
    ("_core/queries/ordering.py", "else of_caller(statement)", "else statement"),
    (
        "_core/queries/query.py",
        "        if self.options:\n            statement = of_",
        "        if False:\n            statement = of_",
    ),
    ("_core/models/facts.py", "return reached | {", "return reached or {"),
    (HIDDEN, "for criterion in criteria_in(options_of(element)):", "for criterion in ():"),
    (TENANCY, "yield values_of(statement)", "yield {}"),
    (TENANCY, "else parameters or ()", "else ()"),
    (TENANTS, "elif bound[0] != scope:", "elif False:"),
    (TENANTS, "bound[1] is not session.identity_map:", "False:"),
    (TENANTS, "if reach.names and in_scope() is None:", "if False:"),
    (TENANTS, "serve_model(session, None if mapper is None else mapper.class_)", "pass"),
    (TENANTS, "if refusal is not None:", "if False:"),
    (TENANTS, "check_parameters(statement, execution.parameters)", "pass"),
    (TENANTS, "            check_row(row)", "            pass"),
    (
        TENANTS,
        "is LoaderCallableStatus.NO_VALUE else before) != given",
        "is None else before) is None",
    ),
    (TENANTS, "    _check_related(state)", "    pass"),
    (TENANTS, "if given is None and related.key is not None:", "if False:"),
    (TENANTS, "if given is not None and given != own:", "if False:"),
    (SCOPES, "if isinstance(tenant, kind):", "if True:"),
    (SCOPES, "if isinstance(found, _All):", "if False:"),
    ("_session/model_events.py", ".where(flush_criterion(table.c[TENANT]))", ""),
    ("_session/events.py", "if execution.is_column_load:", "if False:"),
    ("_core/writes/shapes.py", "if belongs_to_tenants(self._model)", "if False"),
    ("_core/writes/upsert_rows.py", "give_tenant(target.model, values)", "pass"),
    (
        "_core/writes/upsert_statements.py",
        "where = and_(*criteria) if criteria else None",
        "where = None",
    ),
    ("_core/writes/updates.py", "check_changes(model, changes)", "pass"),
]


# Shortcuts: conditions under which rows go through the unit of work instead.
SHORTCUT_MUTANTS = [
    (NEW_ROW, "state.key is not None\n        or not _is", "not _is"),
    (NEW_ROW, "        or any(name in state.dict for name in facts.relationships)\n", ""),
    (NEW_ROW, "        or _has_other_changes(session, row)\n", ""),
    (NEW_ROW, "        or not has_no_listeners(session, *FLUSH)\n", ""),
    (NEW_ROW, '        or listens_to_rows(facts, "insert")\n', ""),
    (NEW_ROW, "        or bool(state.manager.dispatch.refresh_flush)\n", ""),
    (NEW_ROW, "if not missing and state.mapper", "if False and state.mapper"),
    (NEW_ROWS, "state.key is not None or state.class_", "state.class_"),
    (NEW_ROWS, "or state.class_ is not facts.model", ""),
    (KEPT_ROWS, "kept.difference_update(states)", "pass"),
    (KEPT_ROWS, "        and all(map(held.contains_state, states))\n", ""),
    (KEPT_ROWS, "        and is_clean(session)\n", ""),
    (KEPT_ROWS, 'not has_listeners(session.dispatch, ("before_commit",))', "True"),
    (KEPT_ROWS, "        and not any(state.callables for state in states)\n", ""),
    (KEPT_ROWS, "        and not has_deleted(session)\n", ""),
    (KEPT_ROWS, "session.expire_on_commit = True", "pass"),
]
VALUE_MUTANTS = [
    (
        "_core/writes/targets.py",
        "(column.primary_key or not column.nullable)",
        "not column.nullable",
    ),
    (UPSERTS, "keys.items() if None not in key}", "keys.items()}"),
    (
        "_async/_running/upserted_batches.py",
        "criteria = target.criteria if set(names) == set(target.key) else ()",
        "criteria = ()",
    ),
    (SHAPES, "if not keys:", "if False:"),
    (SHAPES, "            or column is column.table.autoincrement_column\n", ""),
    (SHAPES, "if len(names) < 2 or ", "if "),
    ("_core/filters/lookups.py", "if plain and not changed", "if not changed"),
    ("_core/filters/lookups.py", "if plain and not changed", "if plain"),
    ("_core/values/columns.py", "value.tzinfo is zone", "True"),
    ("_core/values/columns.py", "if found in RULES and found is not datetime", "if found in RULES"),
    ("_core/chunks.py", "if chunk_size is None else min(fitting, chunk_size)", ""),
    ("_core/queries/query.py", "return self.keys().limit(1)", "return self.keys()"),
]
SHIELD_MUTANTS = [
    (BLOCKS, "await shielded(self._level.undo)", "await self._level.undo()"),
    (
        BLOCKS,
        "await shielded(commit, self._session, self._block.kept)",
        "await commit(self._session, self._block.kept)",
    ),
    (OPERATIONS, "await shielded(roll_back, write.session)", "await roll_back(write.session)"),
    (OPERATIONS, "await shielded(roll_back, session)", "await roll_back(session)"),
    (OPERATIONS, "await shielded(commit, session, states)", "await commit(session, states)"),
]
ROW_SECURITY_MUTANTS = [
    (ROW_SECURITY, '"tenant"), String), True)', '"tenant"), String), False)'),
    (ROW_SECURITY, "if re.match(_ENDS, statement):", "if False:"),
    (ROW_SECURITY, " or re.match(_SETS, statement)", ""),
    (ROW_SECURITY, 'connection.info[_TENANT] = ""', "pass"),
    (ROW_SECURITY, "renew_cursor(context)", "pass"),
    (ROW_SECURITY, "    if is_autocommitting(connection):", "    if False:"),
    (ROW_SECURITY, "if reason is not None:", "if False:"),
    (ROW_SECURITY, "return not is_incomplete", "return True"),
    (POLICIES, "if passes:", "if False:"),
    (POLICIES, "if open_tables:", "if False:"),
    (POLICIES, ", FORCE ROW LEVEL SECURITY", ""),
    (POLICIES, " WITH CHECK ({criterion})", " WITH CHECK (true)"),
    (POLICIES, "yield from _marked(table.metadata)", "pass"),
    (
        "_session/replica_sessions.py",
        "if is_secured(each) is not is_secured(primary):",
        "if False:",
    ),
]
# What is retried after a refusal, and how failures are reported.
FAILURE_MUTANTS = [
    ("_async/bulk_inserts.py", "elif not refusal.is_of_rows:", "elif False:"),
    ("_async/_running/upserting.py", "if not found.is_of_rows:", "if False:"),
    ("_async/_running/upserting.py", "middle - low > 1 and part.is_of_rows", "middle - low > 1"),
    (REFUSED_VALUES, "if execution is None:", "if True:"),
    (REFUSED_VALUES, "json_serializer_of(execution.dialect)", "None"),
    (REFUSED_VALUES, "if name in named or facts.columns[name].key in named", "if True"),
    (REFUSED_VALUES, "if len(found) > 1:", "if False:"),
    (REFUSED_VALUES, "_compared_with(parameter, execution.compiled) or", ""),
    ("_session/sole_use.py", " or _is_replaced(session, state)", ""),
]
# Failures at the COMMIT or at a savepoint, and refusals that a row caused.
BLOCK_MUTANTS = [
    (BLOCKS, "raise translate(blocks.behind(self._plain, error), self._model) from error", "raise"),
    (BLOCKS, "blocks.behind(self._plain, error), self._model", "error, self._model"),
    (BLOCKS, "(self._plain, error), self._model)", "(self._plain, error))"),
    ("_async/_running/refusals.py", "return isinstance(self.failure, ValidationError)", "return 1"),
    ("_async/_running/refusals.py", "return isinstance(self.failure, ValidationError)", "return 0"),
]
PARAMETER_MUTANTS = [
    ("ext/fastapi/filters.py", " if name in GET_ROWS_PARAMETERS else name", ""),
    ("ext/fastapi/filters.py", 'f"{name}__eq" if name in GET_ROWS_PARAMETERS else name', "name"),
]
# Mutants that only tests with a server kill.
LOSS_MUTANTS = [
    (OPERATIONS, "is_interrupted = not isinstance(error, Exception)", "is_cut_off = False"),
    ("_session/blocks.py", "context.is_disconnect = True", "pass"),
    ("_core/errors/translation.py", "    if is_cut_connection(error):", "    if False:"),
]
# What the property tests have to find: each is a fault that the library once had, or one like it.
LIMIT_MUTANTS = [
    (PARAMETERS, "ARRAY(_unlimited(type_) if _may_have_limits(type_) else type_)", "ARRAY(type_)"),
    (PARAMETERS, "return String() if type_.length else type_", "return type_"),
    (PARAMETERS, "return _BlankPadded()", "return type_"),
    (PARAMETERS, "isinstance(type_, TypeDecorator)\n        or bool(", "bool("),
    (PARAMETERS, "        or bool(variants_of(type_))\n", ""),
    (PARAMETERS, "return type_.adapt(type(type_), **limits) if limits else type_", "return type_"),
    (PARAMETERS, "return _unlimited(type_) if _rounds(type_) else type_", "return type_"),
]
PARAMETER_NAME_MUTANTS = [
    (PARAMETERS, "return _unused_prefix(", 'return "new_" or _unused_prefix('),
    (PARAMETERS, "return _unused_prefix(", 'return "key_" or _unused_prefix('),
    (PARAMETERS, "while any(name.startswith(prefix) for name in names):", "while False:"),
    (
        "_core/writes/upsert_statements.py",
        'bindparam(f"{prefix}{name}")',
        'bindparam(f"new_{name}")',
    ),
    ("_core/writes/updates.py", 'bindparam(f"{prefix}{name}", value', "bindparam(name, value"),
    (BY_KEY, 'f"{prefix}{name}"', 'f"new_{name}"'),
]
VALIDATION_MUTANTS = [
    (PAYLOAD, "TypeAdapter(many, config=config)", "TypeAdapter(many)"),
    (PAYLOAD, "model.model_rebuild(raise_errors=False)", "pass"),
    (PAYLOAD, "if _NEUTRAL.issuperset(config) else frozenset()", ""),
    (PAYLOAD, "return rules.stored(attribute, values, found)", "return values"),
    (PAYLOAD, 'self.adapter.dump_python(found, mode="json", warnings=False)', "found"),
    (PAYLOAD, "*constraints, *_field_validators(model, name)", "*constraints,"),
    (
        PAYLOAD,
        "*constraints, *_field_validators(model, name)",
        "*_field_validators(model, name),",
    ),
    (PAYLOAD, "reads_first=is_json(type_) or _has_reader(declared)", "reads_first=is_json(type_)"),
    (PAYLOAD, "reads_first=is_json(type_) or _has_reader(declared)", "reads_first=False"),
    (READERS, 'value = _ANYTHING.dump_python(value, mode="json")', "pass"),
    (READERS, 'is_plain or hasattr(value, "unicode_string")', "is_plain"),
    (READERS, "    IPv4Address,\n    IPv6Address,\n    IPv4Interface", "    IPv4Interface"),
]
COLUMN_NAME_MUTANTS = [
    (STATEMENTS, 'plain = name.removesuffix("__eq")', "plain = name"),
    (BUILDER, "def where(self, /, *expressions: Criterion, **", "def where(self, page=None, **"),
    (BUILDER, "def where(self, /, *expressions", "def where(self, *expressions"),
    (BUILDER, "def exclude(self, /, **", "def exclude(self, **"),
]
LIST_MUTANTS = [
    (
        "_core/writes/key_lists.py",
        "    return KeyList(",
        "    assert all(facts.columns[name].primary_key for name in names)\n    return KeyList(",
    ),
]
# What may be run again, and what may not.
REPEAT_MUTANTS = [
    *(
        (DRIVER_ERRORS, f"_REPEATABLE = frozenset({{{kinds}", f"_REPEATABLE = frozenset({{{left}")
        for kinds, left in (
            ("_COLLISION, _DEADLOCK", "_DEADLOCK"),
            ("_COLLISION, _DEADLOCK", "_COLLISION"),
            ("_COLLISION, _DEADLOCK, _ENDED", "_COLLISION, _DEADLOCK"),
            ("_COLLISION, _DEADLOCK, _ENDED, _LOCK_TIMEOUT", "_COLLISION, _DEADLOCK, _ENDED"),
            (
                "_COLLISION, _DEADLOCK, _ENDED, _LOCK_TIMEOUT, _NODE",
                "_COLLISION, _DEADLOCK, _ENDED, _LOCK_TIMEOUT",
            ),
            ("_COLLISION", "_LOCK_REFUSED, _COLLISION"),
        )
    ),
    (DRIVER_ERRORS, "return _is_at_an_end(error)", "return True"),
    (DRIVER_ERRORS, "return _is_at_an_end(error)", "return False"),
    (TRANSIENT, "TransactionError(outcome_unknown=True) | ", ""),
    (TRANSIENT, " | ConflictError(version_given=True)", ""),
    (TRANSIENT, "case ConflictError() | StaleDataError():", "case StaleDataError():"),
    (TRANSIENT, "case ConflictError() | StaleDataError():", "case ConflictError():"),
    (TRANSIENT, '"connection" if _is_lost(error.original_error) else "final"', '"connection"'),
    (TRANSIENT, '"connection" if _is_lost(error.original_error) else "final"', '"final"'),
    (TRANSIENT, 'return None if verdict == "final" else verdict', "return verdict"),
]
# If the tests failed for another reason, each mutant would seem to be killed.
NO_MUTANT = ("__init__.py", "", "")
GROUPS = {
    "tenancy": (
        TENANCY_MUTANTS,
        [
            *("tests/_async/test_tenancy.py", "tests/_async/test_tenant_leaks.py"),
            "tests/_async/test_tenant_pairs.py",
        ],
    ),
    "samples of tables": (
        [
            (
                HIDDEN,
                "Alias | TableSample) else table",
                "Alias) else table",
            ),
        ],
        ["--databases", "postgresql", "tests/_async/test_tenant_leaks.py"],
    ),
    "row security": (
        ROW_SECURITY_MUTANTS,
        ["--databases", "postgresql", "tests/_async/test_row_security.py"],
    ),
    "shortcuts": (
        SHORTCUT_MUTANTS,
        [
            *("tests/_async/test_many_new_rows.py", "tests/async_only/test_many_new_rows.py"),
            *("tests/_async/test_single_statement_writes.py", "tests/_async/test_kept_rows.py"),
            *("tests/_async/test_write_row.py", "tests/_async/test_statement_counts.py"),
            *("tests/_async/test_sessions.py", "tests/_async/test_get_one_or_create.py"),
        ],
    ),
    "values": (
        VALUE_MUTANTS,
        [
            *("tests/unit/test_bulk_rows.py", "tests/unit/test_coercion.py"),
            *(
                "tests/unit/test_lookups.py",
                "tests/unit/test_chunks.py",
                "tests/unit/test_upsert.py",
                "tests/unit/test_upsert_statements.py",
            ),
            *("tests/_async/test_upserts.py", "tests/_async/test_upsert_failures.py"),
            *("tests/_async/test_bulk_inserts.py", "tests/_async/test_filters.py"),
            *("tests/_async/test_query_builder.py", "tests/_async/test_statement_counts.py"),
        ],
    ),
    "failures": (
        FAILURE_MUTANTS,
        [
            *("tests/_async/test_bulk_inserts.py", "tests/_async/test_upsert_failures.py"),
            *(
                "tests/_async/test_written_values.py",
                "tests/async_only/test_one_session_per_task.py",
            ),
            "tests/_async/test_json_values.py",
        ],
    ),
    "blocks": (
        BLOCK_MUTANTS,
        [
            *("--databases", "postgresql", "tests/_async/test_transaction_failures.py"),
            *("tests/_async/test_deferrable_keys.py", "tests/_async/test_bulk_inserts.py"),
            *("tests/_async/test_lost_transactions.py", "tests/_async/test_upsert_failures.py"),
        ],
    ),
    "parameters": (PARAMETER_MUTANTS, ["tests/unit/test_fastapi_filters.py"]),
    "limits": (
        LIMIT_MUTANTS,
        [
            *("--databases", "postgresql", "tests/_async/test_values_beyond_columns.py"),
            *("-k", "test_lists_reach_the_rows_that_have_their_values"),
        ],
    ),
    "names of parameters": (
        PARAMETER_NAME_MUTANTS,
        [
            "tests/_async/test_parameter_names.py",
            *("-k", "row_is or rows_are"),
        ],
    ),
    "validation": (VALIDATION_MUTANTS, ["tests/sync_only/test_value_properties.py"]),
    "names of columns": (
        COLUMN_NAME_MUTANTS,
        ["tests/_async/test_names_of_columns.py", "-k", "any_columns"],
    ),
    "lists": (
        LIST_MUTANTS,
        [
            "tests/_async/test_values_beyond_columns.py",
            *("-k", "test_lists_reach_the_rows_that_have_their_values"),
        ],
    ),
    "repeats": (
        REPEAT_MUTANTS,
        ["tests/unit/test_transient.py", "tests/_async/test_run_transaction.py"],
    ),
    "losses": (
        LOSS_MUTANTS,
        [
            *("--databases", "postgresql", "tests/async_only/test_lost_connections.py"),
            "tests/async_only/test_cancellation.py",
        ],
    ),
    "shields": (
        SHIELD_MUTANTS,
        ["tests/async_only/test_cancellation.py", "tests/async_only/test_request_cancellation.py"],
    ),
}


def main() -> int:
    """Run the tests on each mutant, and return how many survive."""
    killed, survivors = 0, 0
    for name in sys.argv[1:] or GROUPS:
        mutants, tests = GROUPS[name]
        if not _survives(*NO_MUTANT, tests):
            raise SystemExit(f"the tests of {name!r} fail without a mutant, too")
        for module, old, new in mutants:
            if _survives(module, old, new, tests):
                survivors += 1
                print(f"SURVIVES {module}: {old!r} -> {new!r}", flush=True)
            else:
                killed += 1
    print(f"{killed} of {killed + survivors} mutants are killed")
    return survivors


def _survives(module: str, old: str, new: str, tests: list[str]) -> bool:
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
            [*command, "--databases", "sqlite", *tests],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": folder},
            capture_output=True,
            check=False,
        )
    return run.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
