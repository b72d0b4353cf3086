"""demo/sftp_server.py: each department sees its own folder, may read it, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from demo import sftp_server
from hub.services import free_port
from tests.sftp import PASSWORD, Served, served


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    made = {name: tmp_path / name for name in ("sh_hrss", "sh_mnr")}
    for name, folder in made.items():
        (folder / "sub").mkdir(parents=True)
        (folder / f"{name}.txt").write_text(name)
    (made["sh_hrss"] / "out").symlink_to(made["sh_mnr"] / "sh_mnr.txt")
    return made


@pytest.fixture
def server(tmp_path: Path, folders: dict[str, Path]) -> Iterator[Served]:
    with served(tmp_path / "key", **folders) as running:
        yield running


def client(server: Served, user: str = "sh-hrss", password: str = PASSWORD) -> paramiko.SFTPClient:
    transport = paramiko.Transport(("127.0.0.1", server.port))
    transport.connect(username=user, password=password)
    opened = paramiko.SFTPClient.from_transport(transport)
    assert opened is not None
    return opened


def test_each_sees_its_own_folder(server: Served) -> None:
    with client(server) as one, client(server, "sh-mnr") as other:
        assert sorted(one.listdir("/")) == ["out", "sh_hrss.txt", "sub"]
        assert other.listdir("/") != one.listdir("/")
        assert one.open("/../../sh_hrss.txt").read() == b"sh_hrss"
        for path in ("/out", "/../sh_mnr/sh_mnr.txt", "/etc/passwd"):
            with pytest.raises(FileNotFoundError):
                one.open(path)


def test_nothing_can_be_written(server: Served, folders: dict[str, Path]) -> None:
    before = sorted(folders["sh_hrss"].rglob("*"))
    with client(server) as one:
        attempts = (
            lambda: one.open("/new.txt", "w"),
            lambda: one.open("/sh_hrss.txt", "r+"),
            lambda: one.open("/sh_hrss.txt", "a"),
            lambda: one.remove("/sh_hrss.txt"),
            lambda: one.rename("/sh_hrss.txt", "/other.txt"),
            lambda: one.posix_rename("/sh_hrss.txt", "/other.txt"),
            lambda: one.mkdir("/folder"),
            lambda: one.rmdir("/sub"),
            lambda: one.symlink("/sh_hrss.txt", "/link"),
            lambda: one.chmod("/sh_hrss.txt", 0o777),
            lambda: one.truncate("/sh_hrss.txt", 0),
            lambda: one.utime("/sh_hrss.txt", (1, 1)),
        )
        for attempt in attempts:
            with pytest.raises(PermissionError):
                attempt()
    assert sorted(folders["sh_hrss"].rglob("*")) == before
    assert (folders["sh_hrss"] / "sh_hrss.txt").read_text() == "sh_hrss"


@pytest.mark.parametrize(("user", "password"), [("sh-hrss", "wrong"), ("nobody", ""), ("nobody", PASSWORD), ("", "")])
def test_who_is_not_let_in(server: Served, user: str, password: str) -> None:
    with pytest.raises(paramiko.AuthenticationException):
        client(server, user, password)


def test_no_shell(server: Served) -> None:
    transport = paramiko.Transport(("127.0.0.1", server.port))
    transport.connect(username="sh-hrss", password=PASSWORD)
    with transport, pytest.raises(paramiko.SSHException):
        transport.open_session().exec_command("id")


def test_host_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "host"
    line = sftp_server.host_key(path)
    assert line.startswith("ssh-ed25519 AAAA")
    assert sftp_server.host_key(path) == line
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.with_name("host.pub").read_text() == line + "\n"


def test_command_line(tmp_path: Path, folders: dict[str, Path]) -> None:
    """Started as the demo starts it: with passwords from the environment, until SIGTERM."""
    port = free_port(22300)
    command = sftp_server.command(port, tmp_path / "key", {"sh-hrss": folders["sh_hrss"]})
    environment = {**os.environ, sftp_server.variable("sh-hrss"): PASSWORD}
    assert sftp_server.variable("sh-hrss") == "YICI_SFTP_SH_HRSS"
    assert not sftp_server.answers(port)
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"sftp://127.0.0.1:{port}\n"
        assert sftp_server.answers(port)
        transport = paramiko.Transport(("127.0.0.1", port))
        transport.connect(username="sh-hrss", password=PASSWORD)
        assert f"{transport.get_remote_server_key().get_name()} AAAA" in sftp_server.host_key(tmp_path / "key")
        transport.close()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    assert PASSWORD not in " ".join(command)


def test_what_is_refused_at_the_start(
    tmp_path: Path, server: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = ["--host-key", str(tmp_path / "key")]
    monkeypatch.delenv("YICI_SFTP_X", raising=False)
    assert sftp_server.main(["--port", "0", *key, "--share", f"x={tmp_path}"]) == 2
    monkeypatch.setenv("YICI_SFTP_X", PASSWORD)
    assert sftp_server.main(["--port", "0", *key, "--share", f"x={tmp_path}/absent"]) != 0
    assert sftp_server.main(["--port", str(server.port), *key, "--share", f"x={tmp_path}"]) != 0
    shown = capsys.readouterr().err
    assert "YICI_SFTP_X" in shown and "absent" in shown and str(server.port) in shown
    assert PASSWORD not in shown
