"""What is signed: one way of writing it, one key that made it."""

from __future__ import annotations

import json

import pytest
from joserfc import jws
from joserfc.jwk import OctKey, OKPKey

from connectors import signature
from connectors.errors import FatalError
from connectors.signature import base64url
from tests import examplepage

KEY = examplepage.key()
PUBLIC = [signature.public_key(examplepage.public_key())]


TYPE = "yici-test+jws"


def code(page: bytes, keys: list[OKPKey] = PUBLIC) -> str:
    with pytest.raises(FatalError) as refused:
        signature.verify(page, keys, "a page", TYPE)
    return refused.value.code


def test_there_and_back() -> None:
    page = signature.sign(b"\x00any bytes", KEY, TYPE)
    header = jws.extract_compact(page.encode()).protected
    assert header == {"alg": "Ed25519", "kid": KEY.thumbprint(), "typ": TYPE}
    assert signature.verify(page.encode(), PUBLIC, "a page", TYPE) == b"\x00any bytes"
    large = b"x" * 5_000_000
    assert signature.verify(signature.sign(large, KEY, TYPE).encode() + b"\n", PUBLIC, "a page", TYPE) == large


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    """The key of RFC 8037, appendix A."""
    assert (
        signature.public_key("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").thumbprint()
        == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    )


def test_every_single_byte_counts() -> None:
    page = signature.sign(b'{"protocol": "yici/1"}', KEY, TYPE).encode()
    for place in range(len(page)):
        changed = bytearray(page)
        changed[place] = ord("A") if changed[place] != ord("A") else ord("B")
        assert code(bytes(changed)) in ("signature-wrong", "signature-key-unknown"), place
    for changed_page in (page + b"=", page[:-1], page + b"A", b" ".join((page, page)), page.replace(b".", b"..", 1)):
        assert code(changed_page) == "signature-wrong"


def test_other_kinds_of_tokens() -> None:
    header = {"alg": "Ed25519", "kid": KEY.thumbprint(), "typ": TYPE}
    public = examplepage.public_key()
    for change, key in (
        ({"typ": "at+jwt"}, KEY),
        ({"typ": None}, KEY),
        ({"alg": "HS256"}, OctKey.import_key(public)),
    ):
        made = {name: value for name, value in {**header, **change}.items() if value}
        registry = jws.JWSRegistry(algorithms=["Ed25519", "HS256"])
        assert code(jws.serialize_compact(made, b"{}", key, registry=registry).encode()) == "signature-wrong"
    unsigned = base64url(json.dumps({**header, "alg": "none"}).encode())
    assert code(f"{unsigned}.e30.".encode()) == "signature-wrong"
    assert code(signature.sign(b"{}", OKPKey.generate_key("Ed25519"), TYPE).encode()) == "signature-key-unknown"
    assert code(signature.sign(b"{}", KEY, TYPE).encode(), []) == "signature-key-unknown"
    for garbage in (b"", b"\xff", b"a.b.c", b"...", b"[" * 10_000):
        assert code(garbage) == "signature-wrong"


@pytest.mark.parametrize("text", ["", "AAAA", "*" * 43, "A" * 44, "é" * 43])
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        signature.public_key(text)
