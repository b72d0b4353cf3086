"""What a hub proves itself with: made once, replaced with an overlap, readable by the hub alone."""

from __future__ import annotations

import datetime as dt
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from connectors.errors import FatalError, UsageError
from hub.exchange import certificates, keys, tls
from hub.home import Home
from tests.conftest import ROOT

NOW = dt.datetime.now(dt.UTC)
HOUR = dt.timedelta(hours=1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("YICI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("YICI_HUB", "zj")
    yield Home(tmp_path / "home")


def test_made_once_and_kept(home: Home) -> None:
    first = keys.own()
    assert keys.own() is first
    keys._read.clear()
    assert keys.own() == first and len(first.keys) == len(first.certificates) == 1
    assert first.signing(NOW).thumbprint() == first.keys[0].name
    assert [key.thumbprint() for key in first.public()] == [first.keys[0].name]
    for path in (*home.keys.iterdir(), home.keys / first.keys[0].file, first.certificate(NOW)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    tls.server_context(first.certificate(NOW), [first.certificates[0].public])


def test_many_who_make_them_at_once_have_the_same(home: Home) -> None:
    home.create()
    script = "from hub.exchange import keys; own = keys.own(); print(own.keys[0].name, own.certificates[0].name)"
    running = [
        subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert len({process.communicate(timeout=60)[0] for process in running}) == 1


def test_replaced_with_an_overlap(home: Home) -> None:
    old = keys.own()
    new = keys.rotate(12 * HOUR, NOW)
    assert [key.name for key in new.keys[:1]] == [old.keys[0].name] and len(new.keys) == len(new.certificates) == 2
    assert new.keys[0].until == new.certificates[0].until == NOW + 12 * HOUR
    assert new.keys[1].until is None and new.keys[1].since <= NOW
    for after, used in (
        (0 * HOUR, 0),
        (11 * HOUR, 0),
        (12 * HOUR, 1),
        (12 * HOUR - 2 * keys.SKEW, 1),
        (9999 * HOUR, 1),
    ):
        assert new.signing(NOW + after).thumbprint() == new.keys[used].name, after
        assert new.certificate(NOW + after).name == new.certificates[used].file
    assert keys.own().changed_at == NOW
    # Once it has ended its secret goes; what it signed can still be verified.
    later = keys.rotate(HOUR, NOW + 13 * HOUR)
    assert not (home.keys / later.keys[0].file).exists() and not (home.keys / later.certificates[0].file).exists()
    assert (home.keys / later.keys[1].file).exists()
    assert next(key.thumbprint() for key in later.public()) == old.keys[0].name


def test_a_second_change_does_not_make_the_first_one_last(home: Home) -> None:
    keys.rotate(HOUR, NOW)
    again = keys.rotate(48 * HOUR, NOW + HOUR / 2)
    assert [key.until for key in again.keys] == [NOW + HOUR, NOW + HOUR / 2 + 48 * HOUR, None]
    assert again.signing(NOW + 2 * HOUR).thumbprint() == again.keys[1].name


def test_no_more_than_a_card_can_say(home: Home) -> None:
    for _ in range(keys.MOST - 1):
        keys.rotate(HOUR, NOW)
    with pytest.raises(UsageError) as refusal:
        keys.rotate(HOUR, NOW)
    assert refusal.value.code == "keys-many"
    keys.rotate(HOUR, NOW + 2 * HOUR)


def test_without_overlap_the_new_one_counts_at_once(home: Home) -> None:
    new = keys.rotate(0 * HOUR, NOW)
    assert new.signing(NOW).thumbprint() == new.keys[1].name and not new.keys[0].valid(NOW)


def test_a_secret_that_is_gone_is_not_made_anew(home: Home) -> None:
    own = keys.own()
    (home.keys / own.keys[0].file).unlink()
    keys._private.cache_clear()
    with pytest.raises(FatalError) as refusal:
        own.signing(NOW)
    assert refusal.value.code == "key-missing"
    (home.keys / keys.FILE).write_text("{}")
    with pytest.raises(FatalError) as unreadable:
        keys.own()
    assert unreadable.value.code == "exchange-keys-unreadable"


def test_certificates_that_may_be_pinned(tmp_path: Path) -> None:
    made = certificates.make("zj", NOW)
    assert certificates.fingerprint(made.pem) == made.fingerprint
    certificate = x509.load_pem_x509_certificate(made.pem.encode())
    assert certificate.not_valid_before_utc < NOW - HOUR and certificate.not_valid_after_utc > NOW + 1000 * HOUR
    authority = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=a",
         "-addext", "basicConstraints=critical,CA:TRUE"], capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    weak = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=a",
         "-addext", "basicConstraints=CA:FALSE"], capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for pem in (made.pem + made.pem, made.private + made.pem, "", "nothing", authority, weak, "é"):
        with pytest.raises(ValueError):
            certificates.fingerprint(pem)
    assert ssl.PEM_cert_to_DER_cert(made.pem) == certificate.public_bytes(Encoding.DER)
