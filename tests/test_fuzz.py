"""The API against its own OpenAPI: fuzzed with schemathesis, and asked through a client generated from it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.serving import LICENCE, Hub, filled_hub


@pytest.fixture
def hub(store: sa.Engine) -> Iterator[Hub]:
    with filled_hub(store) as served_hub:
        with store.begin() as connection:
            connection.execute(sa.text("UPDATE agreement SET rate = 1000000"))
        yield served_hub.sign_in()


@pytest.mark.slow
def test_no_input_breaks_it_and_every_response_conforms(hub: Hub, tmp_path: Path) -> None:
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance"
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{hub.base}/openapi.json", "--checks", checks,
        "--header", f"Authorization: {hub.session.headers['Authorization']!s}", "--max-examples", "25", "--seed", "7",
        "--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    selected, tested, generated = (
        int(re.search(pattern, done.stdout)[1])  # type: ignore[index]
        for pattern in (r"Selected: (\d+)/", r"Tested: (\d+)", r"(\d+) generated")
    )
    assert tested == selected >= 18 and generated > 500


@pytest.mark.slow
def test_a_generated_client_works(hub: Hub, tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(hub.get("/openapi.json").json()))
    command = [
        str(Path(sys.executable).with_name("openapi-python-client")), "generate", "--path", str(document), "--meta", "none",
        "--output-path", str(tmp_path / "yici_client"),
    ]  # fmt: skip
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stdout + made.stderr
    token = str(hub.session.headers["Authorization"]).removeprefix("Bearer ")
    done = subprocess.run(
        [sys.executable, "-c", _ASKING, hub.base, token, LICENCE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == ["held", "business-licence"]


_ASKING = """
import json, sys
from yici_client import AuthenticatedClient
from yici_client.api.lookups import lookup_v1_lookups_post as lookup
from yici_client.models import Lookup
base, token, licence = sys.argv[1:]
client = AuthenticatedClient(base_url=base, token=token, raise_on_unexpected_status=True)
given = lookup.sync(client=client, body=Lookup(items=["demo-food-permit"], id=licence))
first = given.answers[0].requirements[0]
print(json.dumps([first.disposition, first.requirement]))
"""
