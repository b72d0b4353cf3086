"""hub/signing.py: who this hub says it is, and the one key of its home that it signs with."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from connectors import signature
from connectors.errors import FatalError
from hub import signing


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YICI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_name_and_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YICI_REGION", "320000")
    monkeypatch.delenv("YICI_HUB", raising=False)
    assert signing.publisher() == signing.Publisher("hub", "320000")
    monkeypatch.setenv("YICI_HUB", "js-hub")
    assert signing.publisher() == signing.Publisher("js-hub", "320000")


@pytest.mark.parametrize(("hub", "region", "code"), [
    ("Js", "320000", "hub-name-invalid"), ("js--hub", "320000", "hub-name-invalid"), ("j" * 81, "320000", "hub-name-invalid"),
    ("js\n", "320000", "hub-name-invalid"), ("js", "", "hub-region-missing"), ("js", "32", "hub-region-missing"),
    ("js", "020000", "hub-region-missing"), ("js", "３２００００", "hub-region-missing"),
])  # fmt: skip
def test_what_is_no_name_or_region(monkeypatch: pytest.MonkeyPatch, hub: str, region: str, code: str) -> None:
    monkeypatch.setenv("YICI_HUB", hub)
    monkeypatch.setenv("YICI_REGION", region)
    with pytest.raises(FatalError) as caught:
        signing.publisher()
    assert caught.value.code == code


def test_partners_can_verify_what_is_signed(place: Path) -> None:
    said = b'{"hub":"js"}'
    beside = signing.sign_detached(said, signature.EVIDENCE)
    ours = signature.public_key(signing.public_key())
    signature.verify_detached(said, beside, [ours], signature.EVIDENCE, "evidence")
    other = signing.key(str(place), "another.key")
    with pytest.raises(FatalError) as caught:
        signature.verify_detached(said, beside, [other], signature.EVIDENCE, "evidence")
    assert caught.value.code == "signature-key-unknown"


def test_the_key_stays_and_is_the_owners_alone(place: Path, tmp_path: Path) -> None:
    first = signing.key(str(place), signing.KEY)
    file = place / "keys" / signing.KEY
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert signing.key(str(place), signing.KEY).thumbprint() == first.thumbprint()
    assert signing.key(str(tmp_path / "other"), signing.KEY).thumbprint() != first.thumbprint()
    assert "d" not in first.as_dict(private=False) and signing.public_key() == first.as_dict(private=False)["x"]
