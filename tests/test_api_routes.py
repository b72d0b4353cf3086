"""Promises about all of the API at once, each proving that it saw something."""

from __future__ import annotations

import string
import subprocess
import sys
from typing import Any

import openapi_spec_validator
import pytest
import requests
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from connectors import messages
from hub import problems
from hub.api import guard, shared_files, sharing
from hub.api.app import PUBLIC, create
from tests.serving import served


def routes() -> list[Any]:
    return [route for route in create().routes if hasattr(route, "path")]


def guards(dependant: Dependant) -> set[Any]:
    """Which of the guards stand before a route."""
    found = {dependant.call} & {guard.agreement, sharing.asking, shared_files.signed}
    return found.union(*(guards(part) for part in dependant.dependencies))


def test_every_route_has_its_guard() -> None:
    seen = {route.path: route for route in routes()}
    assert len(seen) >= 8
    assert set(seen) >= {*PUBLIC, "/v1/lookups", "/v1/items", "/v1/items/{code}"}
    private = {path: route for path, route in seen.items() if path not in PUBLIC}
    assert private
    for path, route in private.items():
        assert isinstance(route, APIRoute), path
        wanted = guard.agreement
        if path.startswith("/delta/"):  # a token of its own, or an address that was signed
            assert isinstance(route, sharing.SharingRoute), path
            wanted = shared_files.signed if path.startswith("/delta/files/") else sharing.asking
        else:
            assert path.startswith("/v1/")
        assert guards(route.dependant) == {wanted}, path
    assert sum(path.startswith("/delta/") for path in private) >= 10


def test_every_route_refuses_strangers(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP, without a database: whoever has no token does not get as far as needing one."""
    monkeypatch.setenv("YICI_HOME", str(tmp_path))
    monkeypatch.setenv("YICI_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    tried = 0
    with served(create()) as base:
        for route in routes():
            for method in route.methods - {"HEAD"}:
                if route.path not in PUBLIC:
                    address = base + route.path.replace("{code}", "demo-food-permit").replace(":path", "")
                    answer = requests.request(method, address, timeout=30)
                    if route.path.startswith("/delta/files/"):  # it is the store that knows what was signed
                        assert (answer.status_code, answer.json()["errorCode"]) == (503, "store-unavailable")
                        continue
                    code = "errorCode" if route.path.startswith("/delta/") else "code"
                    assert (answer.status_code, answer.json()[code]) == (401, "token-missing")
                    tried += 1
    assert tried >= 3


def test_an_address_with_something_behind_it_is_unknown(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is sent elsewhere, least of all to where the Host header says; and what an address does not do is a problem, too."""
    monkeypatch.setenv("YICI_HOME", str(tmp_path))
    monkeypatch.setenv("YICI_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    tried = 0
    with served(create()) as base:
        for route in routes():
            address = base + route.path.replace("{code}", "demo-food-permit").replace(":path", "")
            for method in ("GET", "POST"):
                answer = requests.request(
                    method, f"{address}/?x=1", headers={"Host": "evil.example"}, timeout=30, allow_redirects=False
                )
                assert "evil" not in str(answer.headers) + answer.text and "Location" not in answer.headers
                if not route.path.startswith("/delta/"):  # whoever has no token learns nothing of what is there
                    assert answer.status_code == 404, (method, route.path)
                    assert answer.headers["Content-Type"] == problems.MEDIA_TYPE
                    assert answer.json()["code"] == "page-unknown"
                    tried += 1
            if route.path.startswith("/delta/"):
                continue
            for method in {"DELETE", "PATCH", "TRACE"} - route.methods:
                answer = requests.request(method, address, timeout=30)
                assert (answer.status_code, answer.json()["code"]) == (405, "method-not-allowed"), (method, address)
                assert answer.headers["Content-Type"] == problems.MEDIA_TYPE and answer.headers["Allow"]
    assert tried > 20


def test_the_openapi_document_is_valid_and_every_operation_is_documented() -> None:
    document = create().openapi()
    openapi_spec_validator.validate(document)
    assert document["openapi"].startswith("3.1")
    operations = [(path, operation) for path, methods in document["paths"].items() for operation in methods.values()]
    assert len(operations) >= 7
    for path, operation in operations:
        assert operation["summary"]
        assert bool(operation.get("security")) == (path not in PUBLIC), path
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == [problems.MEDIA_TYPE], (path, status)
    text = str(document)
    assert "HTTPValidationError" not in text


def test_every_problem_says_it_in_both_languages() -> None:
    assert len(problems.KINDS) > 20
    for code, kind in problems.KINDS.items():
        texts = messages.sentences()[code]
        names = {name for _, name, _, _ in string.Formatter().parse(texts["en"]) if name}
        for lang in ("zh", "en"):
            document = problems.document(code, lang, dict.fromkeys(names, "x"))
            assert document["title"] and document["detail"]
            assert document["status"] == kind.status
            assert 400 <= kind.status <= 599
        ours = kind.fault == "hub" or (kind.fault == "partner" and code.startswith("partner-"))
        assert ours == (kind.status >= 500 or code in ("item-without-requirements", "identity-undecided")), code


def test_the_api_does_not_load_the_pipeline() -> None:
    script = (
        "import sys; from hub.api.app import create; create().openapi(); import hub.api.serve;"
        "from hub import answers, catalogue; catalogue.published(); catalogue.volatile();"
        "heavy = {'pyarrow', 'pandas', 'numpy', 'duckdb', 'great_expectations', 'airflow', 'fsspec', 'requests',"
        " 'connectors.connect', 'connectors.rest', 'connectors.database', 'connectors.files', 'connectors.reading',"
        " 'mappings.engine', 'mappings.transforms', 'mappings.identifiers', 'hub.pipeline', 'quality'};"
        "assert 'fastapi' in sys.modules; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_headers_stand_in_the_document() -> None:
    paths = create().openapi()["paths"]
    for path, method, name in (
        ("/v1/evidence/{holding}", "get", "Yici-Grant"),
        ("/v1/deposits", "post", "Idempotency-Key"),
    ):
        [header] = [each for each in paths[path][method]["parameters"] if each["name"] == name]
        assert header["required"] and "default" not in header["schema"]
    kept = {path for path, each in paths.items() for one in each.values() if "304" in one["responses"]}
    assert {"/v1/items", "/v1/items/changes", "/v1/items/{code}", "/v1/items/{code}/guide"} <= kept
    for path, operations in paths.items():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                headers = response.get("headers", {})
                if status == "429" or (status == "503" and path.startswith("/v1/")):
                    assert headers["Retry-After"]["required"], path
                if path in kept and status in ("200", "304"):
                    assert headers["ETag"]["required"], path
