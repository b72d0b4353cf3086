"""Access tokens: what is accepted, and what is not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from connectors.errors import UsageError
from hub import tokens


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YICI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def signed(key: Any, header: dict[str, Any] | None = None, **claims: Any) -> str:
    now = int(time.time())
    body = {"iss": "yici", "aud": "yici", "sub": "hall-1", "scope": "lookup", "iat": now, "exp": now + 60, **claims}
    header = {"alg": "Ed25519", "typ": "at+jwt", **(header or {})}
    kept = {name: value for name, value in body.items() if value is not None}
    return jwt.encode(header, kept, key, algorithms=[header["alg"]])


def own_key(home: Path) -> OKPKey:
    return tokens._key(str(home))


def test_a_token_names_its_client_and_lives_for_minutes(home: Path) -> None:
    token = tokens.issue("hall-1")
    assert tokens.client_of(token.text) == "hall-1"
    assert 600 <= token.seconds <= 3600
    assert (home / "keys" / "token.key").stat().st_mode & 0o777 == 0o600


def test_the_copy_is_good_unchanged(home: Path) -> None:
    assert tokens.client_of(signed(own_key(home))) == "hall-1"


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1}, {"exp": None}, {"aud": "other"}, {"aud": None}, {"iss": "other"}, {"iss": None}, {"sub": None},
        {"sub": 5}, {"scope": None}, {"exp": "soon"}, {"nbf": 4102444800},
    ],
)  # fmt: skip
def test_claims_are_checked(home: Path, claims: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="access token"):
        tokens.client_of(signed(own_key(home), **claims))


def test_a_token_is_for_one_scope(home: Path) -> None:
    for scope in ("index", "lookup index"):
        with pytest.raises(UsageError) as refused:
            tokens.client_of(signed(own_key(home), scope=scope))
        assert refused.value.code == "token-invalid"


def test_other_keys_and_algorithms_are_refused(home: Path) -> None:
    public = own_key(home).as_dict(private=False)["x"]
    good = signed(own_key(home))
    head, body, signature = good.split(".")
    unsigned = "eyJhbGciOiJub25lIn0"  # {"alg":"none"}
    forged = [
        signed(OKPKey.generate_key("Ed25519")),
        signed(OctKey.import_key(str(public).ljust(32, "x")), {"alg": "HS256"}),
        signed(own_key(home), {"typ": "JWT"}),
        f"{unsigned}.{body}.",
        f"{head}.{body}.{'A' * len(signature)}",
        f"{head}.{body}",
        "",
        "…",
        "a.b.c",
        good[:-2],
    ]
    for token in forged:
        with pytest.raises(UsageError):
            tokens.client_of(token)
