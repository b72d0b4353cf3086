"""No error code without its line in the documentation, whichever module of whichever package raises it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from connectors import messages
from connectors.errors import RetriableError
from hub import problem_page, problems

PAGE = Path(__file__).parents[1] / "docs" / problem_page.PATH
# Raised in modules that the API loads too, where no request comes to it: by commands, when a server starts or on the way out to
# a partner, whose trouble is told as `partner-…`. What else the API's modules raise needs a kind in hub/problems.py.
ELSEWHERE = {
    "agreement-ambiguous", "agreement-broken", "agreement-number", "bundle-invalid", "card-address", "card-title", "client-empty",
    "client-invalid-name", "client-known", "client-unknown", "codelist-invalid", "deposit-file-exists", "entity-unknown", "exchange-key-unreadable",
    "exchange-keys-unreadable", "field-unknown", "hub-name-invalid", "identity-invalid", "item-invalid", "items-altered", "items-invalid",
    "keys-many", "ledger-busy",
    "ledger-head-missing", "material-unknown", "model-invalid", "partitions-busy", "peer-kid", "peer-known-already", "peer-self", "port-taken",
    "reply-foreign", "secret-short", "share-endpoint-invalid", "share-none", "share-token-days", "signature-key-unknown",
    "signature-wrong", "source-twice", "source-unknown", "sources-root-missing",
}  # fmt: skip


def listed(pattern: str) -> dict[str, str]:
    return dict(re.findall(pattern, PAGE.read_text(encoding="utf-8"), re.MULTILINE))


def test_every_problem_is_documented() -> None:
    said = listed(r"^\| `([a-z-]+)` \| (\d+) \| (?:caller|hub|partner) \|")
    assert said == {code: str(kind.status) for code, kind in problems.KINDS.items()}, "run `yici docs`"


def test_every_code_of_every_module_is_documented() -> None:
    said = set(listed(r"^\| `([a-z0-9-]+)` \| ([\d, -]+) \|"))
    found = problem_page.raised()
    modules = {path for ways in found.values() for paths in ways.values() for path in paths}
    for package in messages.PACKAGES:
        assert any(path.startswith(f"{package}/") for path in modules), package
    assert len(found) > 300 and len(modules) > 120
    assert set(found) <= said, "run `yici docs`"


def test_what_the_api_may_raise_is_a_problem_with_a_kind() -> None:
    """Else the caller would be told `internal` of what is their own mistake."""
    script = (
        "import json, sys; from hub.api.app import create; create(); import hub.api.serve;"
        "print(json.dumps([m.__file__ for n, m in sys.modules.items()"
        " if n.split('.')[0] in ('hub', 'connectors', 'mappings') and getattr(m, '__file__', None)]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    loaded = {str(Path(path).relative_to(problem_page.ROOT)) for path in json.loads(done.stdout)}
    assert len(loaded) > 100
    others = {
        code
        for code, ways in problem_page.raised().items()
        if code not in problems.KINDS
        and not code.startswith(problems.STORE)
        and any(paths & loaded for paths in ways.values())
    }
    assert others == ELSEWHERE


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == problem_page.page(), "run `yici docs`"


def test_a_landing_zone_that_is_full_or_away_is_a_store_that_is() -> None:
    for code in ("landing-full", "landing-unreachable"):
        told = problems.of(RetriableError(code, landing="s3://secret-bucket", reason="x"), "en")
        assert (told["status"], told["code"], told["fault"]) == (503, "store-unavailable", "hub")
        assert "secret-bucket" not in str(told)
