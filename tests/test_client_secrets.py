"""hub/client_secrets.py: a secret is kept as a salted, slow hash; nobody's secret takes as long as a wrong one."""

from __future__ import annotations

import base64
import hashlib
from unittest.mock import patch

from hub import client_secrets


def test_a_secret_matches_its_hash_alone() -> None:
    secret = client_secrets.made()
    kept = client_secrets.hashed(secret)
    assert client_secrets.matches(secret, kept)
    assert not client_secrets.matches(secret + "x", kept)
    assert not client_secrets.matches("", kept)
    assert not client_secrets.matches(client_secrets.made(), kept)


def test_what_is_kept_gives_nothing_away() -> None:
    secret = client_secrets.made()
    first, second = client_secrets.hashed(secret), client_secrets.hashed(secret)
    assert first != second, "each has its own salt"
    assert secret not in first and len(secret) >= 43
    kind, cost, block, parallel, salt, derived = first.split("$")
    assert (kind, int(cost)) == ("scrypt", 2**14)
    expected = hashlib.scrypt(
        secret.encode(), salt=base64.b64decode(salt), n=int(cost), r=int(block), p=int(parallel), dklen=32
    )
    assert base64.b64decode(derived) == expected


def test_a_hash_is_read_with_the_cost_it_was_made_with() -> None:
    derived = hashlib.scrypt(b"old", salt=b"s" * 16, n=2, r=8, p=1, dklen=32)
    kept = f"scrypt$2$8$1${base64.b64encode(b's' * 16).decode()}${base64.b64encode(derived).decode()}"
    assert client_secrets.matches("old", kept) and not client_secrets.matches("new", kept)


def test_an_unknown_client_costs_the_same_work_and_never_matches() -> None:
    with patch.object(hashlib, "scrypt", wraps=hashlib.scrypt) as derive:
        assert not client_secrets.matches("anything", None)
        assert not client_secrets.matches("anything", client_secrets.hashed("else"))
    nobody, _, wrong = (call.kwargs for call in derive.call_args_list)
    same = ("n", "r", "p", "dklen")
    assert [nobody[key] for key in same] == [wrong[key] for key in same]


def test_a_secret_that_is_no_text_is_wrong_not_an_error() -> None:
    assert not client_secrets.matches("\ud800", client_secrets.hashed("x"))
