"""No request ends in a 500, and each answer is as the OpenAPI document says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CHECKS, load_all_checks

from sqlmodel_crud_utils import aio, sync
from sqlmodel_crud_utils.ext.fastapi import crud_router, install_error_handlers, session_dependency
from tests.databases import Database
from tests.router_models import (
    Bench,
    BenchCreate,
    BenchUpdate,
    Lodge,
    LodgeCreate,
    LodgePublic,
    LodgeUpdate,
    Ranger,
    RangerCreate,
    RangerPublic,
    RangerUpdate,
)
from tests.servers import served

load_all_checks()
NAMES = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "use_after_free",
)
WANTED = CHECKS.get_by_names(list(NAMES))
OF_ONE_REQUEST = CHECKS.get_by_names(list(NAMES[:-1]))
EVERYTHING = ("list", "get", "create", "update", "delete", "restore", "bulk")
QUIET = list(HealthCheck)


def service(engine: Any) -> FastAPI:
    """A service of three models: with a UUID, with a relationship, with a composite key."""
    app = FastAPI()
    install_error_handlers(app)
    session = session_dependency(engine)
    lodges = crud_router(
        Lodge,
        session,
        public=LodgePublic,
        create=LodgeCreate,
        update=LodgeUpdate,
        filters=("name", "motto__icontains", "rangers__age__gte", "id__in"),
        sort=("name", "created_at"),
        operations=EVERYTHING,
    )
    rangers = crud_router(
        Ranger,
        session,
        public=RangerPublic,
        create=RangerCreate,
        update=RangerUpdate,
        filters=("age__between", "lodge__name", "lodge__is_null"),
        sort=("name", "lodge__name"),
        search=("name", "lodge__name"),
        alternatives=True,
        pagination="cursor",
        operations=("list", "get", "create", "update", "delete", "bulk"),
    )
    benches = crud_router(
        Bench,
        session,
        public=Bench,
        create=BenchCreate,
        update=BenchUpdate,
        filters=("row__startswith", "number__in"),
        sort=("number",),
    )
    for name, router in (("lodges", lodges), ("rangers", rangers), ("benches", benches)):
        app.include_router(router, prefix=f"/{name}", tags=[name])
    return app


@pytest.fixture(params=[sync, aio], ids=["sync", "async"])
def address(database: Database, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of the service with an engine of one of the APIs."""
    is_sync = request.param is sync
    url = database.sync_url if is_sync else database.async_url
    engine = request.param.create_pooled_engine(url)
    with served(service(engine), engine) as client:
        yield str(client.base_url)
    database.clear()


@pytest.mark.databases("sqlite", "postgresql")
def test_answers_are_as_the_document_says(address: str) -> None:
    """Each operation with what fits its schema, and with what does not."""
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    tried = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=12,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=QUIET,
        )
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            case.call_and_validate(checks=OF_ONE_REQUEST)

        check()
        tried += 1
    assert tried == 7 + 6 + 5


@pytest.mark.databases("sqlite", "postgresql")
def test_what_was_deleted_stays_so(address: str) -> None:
    """Operations one after the other, with what the ones before have answered."""
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")

    class Machine(schema.as_state_machine()):  # type: ignore[misc]
        def validate_response(self, response: Any, case: Any, **more: Any) -> None:
            case.validate_response(response, checks=WANTED, **more)

    Machine.run(
        settings=settings(
            max_examples=10,
            stateful_step_count=8,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=QUIET,
        )
    )
