"""The application: routes, what becomes of errors, and the OpenAPI document."""

from __future__ import annotations

import logging
import os
from typing import Any

import psycopg
import sqlalchemy as sa
from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from connectors.errors import YiciError
from hub import catalogue, problems
from hub.api import (
    answers,
    burden,
    deposits,
    evidence,
    guard,
    items,
    language,
    lookup_batches,
    lookups,
    oauth,
    partner_evidence,
    service,
    shared_files,
    shares,
    store_failures,
    subjects,
)
from hub.api.envelope import Envelope
from hub.api.hot import Hot
from hub.api.metrics import Metrics
from hub.api.rates import Rates
from hub.api.responses import from_error, problem

log = logging.getLogger("yici.api")

VERSION = "1"
AUTHENTICATING = 2
DEPOSITING = 2
ASKING = 32  # questions to partner hubs: each waits most of its time
SHARING = 2
# Addresses anybody may ask; every other route needs a token, and a test walks them all.
PUBLIC = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json", guard.TOKEN_URL})

NEEDED = (evidence.GRANT, "Idempotency-Key")
_BY_STATUS = {404: "page-unknown", 405: "method-not-allowed", 400: "body-malformed"}


class Application(FastAPI):
    """Routes, and in front of them whatever has to be quick; nothing of the framework stands before that."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.state.hot(scope, receive, send)


def create() -> Application:
    """A new application. It needs no database to start; ``/readyz`` says whether it can answer.

    FatalError ``items-invalid``, ``bundle-invalid`` or ``model-invalid`` when the catalogue cannot be used.
    """
    catalogue.digest()  # all of it is loaded now, and stays
    catalogue.volatile()
    app = Application(
        title="Yici 一次",
        version=VERSION,
        summary="What the government already holds for an applicant, and what must still be submitted.",
        docs_url=None,  # these pages load scripts from another host
        redoc_url=None,
        separate_input_output_schemas=False,
        redirect_slashes=False,  # to an address of the Host header's making, with the query in it, before anybody is known
    )
    app.state.metrics = Metrics()
    app.state.attempts = guard.Attempts()
    app.state.rates = Rates()
    # Checking a secret is slow on purpose: few at once, so that guessing takes no thread or memory from lookups.
    app.state.authenticating = CapacityLimiter(AUTHENTICATING)
    app.state.sharing = CapacityLimiter(SHARING)  # files are read and cut by processes of their own
    app.state.asking = CapacityLimiter(ASKING)
    app.state.depositing = CapacityLimiter(DEPOSITING)  # files are hashed, landed, read for their signatures
    for router in (
        service.router,
        oauth.router,
        lookups.router,
        lookup_batches.router,
        items.router,
        answers.router,
        burden.router,
        evidence.router,
        partner_evidence.router,
        deposits.router,
        subjects.router,
        shares.router,
        shared_files.router,  # the last: it answers whatever else is asked below /delta
    ):
        app.include_router(router)
    app.add_exception_handler(YiciError, _on_error)  # type: ignore[arg-type]
    app.add_exception_handler(sa.exc.SQLAlchemyError, _on_store)
    app.add_exception_handler(psycopg.Error, _on_store)
    app.add_exception_handler(HTTPException, _on_http)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _on_invalid)  # type: ignore[arg-type]
    app.add_middleware(Envelope, metrics=app.state.metrics)
    # A proxy on this machine is believed about whom it speaks for, where that matters: where secrets are guessed.
    trusted = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")  # as uvicorn reads it
    inner = ProxyHeadersMiddleware(super(Application, app).__call__, trusted)  # type: ignore[arg-type]
    app.state.hot = Hot(inner, app.state.metrics, app.state.rates)  # type: ignore[arg-type]
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


async def _on_error(request: Request, error: YiciError) -> Response:
    if problems.KINDS[problems.code_of(error)].fault == "hub":
        log.error("%s", error.code)  # the code only: values may name what the operator alone should see
    return from_error(error, language.of(request.headers))


async def _on_store(request: Request, error: Exception) -> Response:
    """A database that is gone, busy or not migrated is the hub's state; any other error is a fault of ours."""
    log.error("%s", store_failures.named(error))
    code = store_failures.code_of(error)
    if code is None:
        raise error
    return problem(code, language.of(request.headers))


async def _on_http(request: Request, error: HTTPException) -> Response:
    code = _BY_STATUS.get(error.status_code, "internal")
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
    return problem(code, language.of(request.headers), headers=headers)


async def _on_invalid(request: Request, error: RequestValidationError) -> Response:
    """FastAPI's own answer repeats the input; ours does not."""
    found = [(entry["loc"], entry["type"]) for entry in error.errors()]
    if all(place[0] == "query" for place, _ in found):
        errors = [{"place": str(place[-1]), "reason": reason} for place, reason in found]
        return problem("query-invalid", language.of(request.headers), errors=errors)
    return problem("body-invalid", language.of(request.headers))


def _complete(operation: dict[str, Any]) -> None:
    """What the framework cannot know of a route: headers that it checks itself, with a problem of its own where they are
    missing; the ETag of what may be kept."""
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in NEEDED:
            parameter["required"] = True
            parameter["schema"].pop("default", None)
    if "304" in operation["responses"]:
        for status in ("200", "304"):
            operation["responses"][status].setdefault("headers", {})["ETag"] = {
                "description": "For If-None-Match", "required": True, "schema": {"type": "string"},
            }  # fmt: skip


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes, openapi_version="3.1.0"
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = problems.SCHEMA
        for body in (
            lookups.Lookup,
            deposits.Deposit,
            partner_evidence.EvidenceWanted,
            partner_evidence.EvidenceUnannounced,
            subjects.SubjectView,
            lookup_batches.LookupBatch,
            lookup_batches.SubjectAnswered,
        ):
            described = body.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(described.pop("$defs", {}))
            schemas[body.__name__] = described
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for operation in (each for path in document["paths"].values() for each in path.values()):
            _complete(operation)
        app.openapi_schema = document
    return app.openapi_schema
