"""connectors/sftpkeys.py: addresses, host keys, private keys."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from connectors.connections import Connection
from connectors.errors import FatalError
from connectors.sftpkeys import address, host_keys, private_key

BLOB = base64.b64encode(b"a key").decode()


def known(**extra: Any) -> Connection:
    return Connection("c", "sftp://ftp.example/", extra=extra)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sftp://ftp.example", ("ftp.example", 22, "/")),
        ("sftp://ftp.example:2222/out/%E4%B8%AD", ("ftp.example", 2222, "/out/中")),
        ("sftp://[::1]:2222/x/", ("::1", 2222, "/x/")),
        ("sftp://h/~/out", ("h", 22, "out")),
        ("sftp://h/~/", ("h", 22, ".")),
    ],
)
def test_address(url: str, expected: tuple[str, int, str]) -> None:
    assert address(Connection("c", url)) == expected


def test_host_keys_of_a_connection(tmp_path: Path) -> None:
    assert host_keys(known(), "h", 22) == []
    one = ("ssh-ed25519", b"a key")
    assert host_keys(known(host_key=f"ssh-ed25519 {BLOB}"), "h", 22) == [one]
    lines = f"\n# old\nftp.example,10.0.0.1 ssh-ed25519 {BLOB} comment\necdsa-sha2-nistp256 {BLOB}\n"
    assert host_keys(known(host_key=lines), "h", 22) == [one, ("ecdsa-sha2-nistp256", b"a key")]
    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
    file = tmp_path / "known_hosts"
    file.write_text(f"ftp.example {key}\n[ftp.example]:2222 {key}\nother {key}\n")
    for port in (22, 2222):
        ((kind, blob),) = host_keys(known(known_hosts=str(file)), "ftp.example", port)
        assert (kind, base64.b64encode(blob).decode()) == tuple(key.split()[:2])
    assert host_keys(known(known_hosts=str(file)), "ftp.example", 2200) == []


@pytest.mark.parametrize("line", ["nonsense", "ssh-ed25519", "ssh-ed25519 ***", f"rsa {BLOB}"])
def test_host_key_that_cannot_be_read(line: str) -> None:
    with pytest.raises(FatalError) as caught:
        host_keys(known(host_key=line), "h", 22)
    assert caught.value.code == "sftp-host-key-unreadable"
    assert line not in caught.value.message("zh")


@pytest.mark.filterwarnings("ignore:.*only 1 round:UserWarning")
@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
def test_private_keys(kind: str, tmp_path: Path) -> None:
    made = asyncssh.generate_private_key(kind)
    (tmp_path / "plain").write_bytes(made.export_private_key())
    (tmp_path / "older").write_bytes(made.export_private_key("pkcs8-pem"))
    (tmp_path / "locked").write_bytes(made.export_private_key(passphrase="open", rounds=1))
    (tmp_path / "none").write_text("no key")
    public = made.export_public_key().decode().split()[1]
    for extra in (
        {"private_key_file": str(tmp_path / "plain")},
        {"private_key": (tmp_path / "plain").read_text()},
        {"private_key_file": str(tmp_path / "older")},
        {"private_key_file": str(tmp_path / "locked"), "private_key_passphrase": "open"},
    ):
        key = private_key(known(**extra))
        assert key is not None
        assert key.get_base64() == public
    for extra in (
        {"private_key_file": str(tmp_path / "absent")},
        {"private_key_file": str(tmp_path / "none")},
        {"private_key_file": str(tmp_path / "locked")},
        {"private_key_file": str(tmp_path / "locked"), "private_key_passphrase": "wrong"},
    ):
        with pytest.raises(FatalError) as caught:
            private_key(known(**extra))
        assert caught.value.code == "sftp-private-key"
    assert private_key(known()) is None
