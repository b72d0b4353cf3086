"""Signatures of PDFs: real ones, made and broken here, judged in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub import pdf_signatures
from tests import papers


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> papers.Authority:
    return papers.Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def signed(authority: papers.Authority) -> bytes:
    return authority.sign(papers.pdf())


def judged(tmp_path: Path, content: bytes, *, apart: bool = False) -> pdf_signatures.Checked:
    path, trust = tmp_path / "a.pdf", tmp_path / "trust"
    path.write_bytes(content)
    with path.open("rb") as file:
        return (pdf_signatures.check if apart else pdf_signatures.read)(file, trust)


def test_a_root_that_is_trusted_makes_it_valid(tmp_path: Path, authority: papers.Authority, signed: bytes) -> None:
    unknown = judged(tmp_path, signed, apart=True)
    [one] = unknown.signatures
    assert (unknown.verdict, one["whole"]) == ("valid-untrusted", True)
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / "root.pem").write_bytes(authority.pem)
    assert judged(tmp_path, signed, apart=True).verdict == "valid"


def test_what_was_altered_is_invalid(tmp_path: Path, authority: papers.Authority, signed: bytes) -> None:
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / "root.pem").write_bytes(authority.pem)
    altered = judged(tmp_path, signed.replace(b"a lease", b"a LEASE"))
    assert altered.verdict == "invalid" and altered.signatures[0]["reason"] == "altered"


def test_more_signatures_than_are_looked_at_are_unchecked(
    tmp_path: Path, authority: papers.Authority, signed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = authority.sign(signed, "Other")
    monkeypatch.setattr(pdf_signatures, "MOST", 2)
    assert judged(tmp_path, both).verdict == "valid-untrusted"
    monkeypatch.setattr(pdf_signatures, "MOST", 1)
    assert judged(tmp_path, signed).verdict == "valid-untrusted"
    found = judged(tmp_path, both)
    assert (found.verdict, found.signatures[1:]) == ("unchecked", [{"verdict": "unchecked", "reason": "too-many"}])
    assert judged(tmp_path, both.replace(b"a lease", b"a LEASE")).verdict == "invalid", "what was looked at is worse"


def test_no_signature_and_no_pdf(tmp_path: Path) -> None:
    assert judged(tmp_path, papers.pdf(), apart=True) == ("unsigned", [])
    for broken in (b"%PDF-1.7\nnothing of the kind", papers.pdf()[:120], b"%PDF-1.7\n" + b"<<" * 20_000):
        assert judged(tmp_path, broken, apart=True).verdict == "unchecked"


def test_the_other_process_knows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for Python tells what it was given."""
    told = tmp_path / "told"
    spy = tmp_path / "python"
    spy.write_text(f"#!/bin/sh\nenv > {told}\n", encoding="ascii")
    spy.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(spy))
    monkeypatch.setenv("YICI_DATABASE_URL", "postgresql://yici:hush@127.0.0.1/yici")
    assert judged(tmp_path, papers.pdf(), apart=True).verdict == "unchecked"
    assert "PATH=" in told.read_text() and "hush" not in told.read_text()
