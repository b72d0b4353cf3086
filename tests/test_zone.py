"""connectors/zone.py: the same on a disk, in an object store and over SFTP; whole or not at all."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from connectors import zone as zones
from connectors.errors import FatalError, RetriableError
from connectors.zone import Zone
from tests import zones as kinds
from tests.conftest import ROOT


@pytest.fixture(params=["local", "memory", "s3", "sftp"])
def zone(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Zone]:
    with kinds.of(request.param, tmp_path, monkeypatch) as url:
        yield Zone(url)


def publish(zone: Zone, relative: str, content: bytes) -> None:
    with zone.draft() as draft:
        draft.write(content)
        zone.publish(draft, relative)


def test_files_of_a_zone(zone: Zone) -> None:
    assert (zone.size("a/b"), zone.names("a"), zone.weight("a")) == (None, [], (0, 0))
    publish(zone, "a/b/one", b"1" * 300_000)
    zone.write("a/b/two", b"22")
    zone.write("a/b/two", b"2")
    zone.write("a/c", b"")
    assert (zone.size("a/b/one"), zone.size("a/b/two"), zone.size("a/c")) == (300_000, 1, 0)
    assert (zone.names("a"), zone.names("a/b"), zone.names("none")) == (["b", "c"], ["one", "two"], [])
    assert zone.weight("a") == (3, 300_001)
    with zone.open("a/b/one") as stream:
        assert stream.read() == b"1" * 300_000
    zone.move("a/b/one", "d/e/one")
    assert (zone.size("a/b/one"), zone.size("d/e/one")) == (None, 300_000)
    for _ in range(2):
        zone.remove("a")
        zone.remove_file("d/e/one")
    assert (zone.names("a"), zone.size("d/e/one")) == ([], None)
    with pytest.raises(FileNotFoundError):
        zone.read("a/c")
    with pytest.raises(FileNotFoundError):
        zone.open("a/c").read()


def test_an_upload_that_breaks_off_is_not_seen(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    zone.write("a/file", b"before")

    def half(source: IO[bytes], target: IO[bytes], length: int) -> None:
        target.write(source.read(size - 100))
        raise ConnectionResetError

    size = 9 << 20 if zone.shown.startswith("s3") else 200_000  # an object of several parts, one of which arrived

    monkeypatch.setattr(zones.shutil, "copyfileobj", half)
    monkeypatch.setattr(zones.os, "fsync", lambda descriptor: (_ for _ in ()).throw(ConnectionResetError))
    with pytest.raises((RetriableError, ConnectionResetError)):
        publish(zone, "a/file", b"x" * size)
    assert zone.read("a/file") == b"before"
    assert [name for name in zone.names("") if name != "incoming"] == ["a"]
    assert zone.names("incoming") == []


def test_a_draft_that_is_given_up_leaves_nothing(zone: Zone) -> None:
    with pytest.raises(ZeroDivisionError), zone.draft() as draft:
        draft.write(b"half")
        raise ZeroDivisionError
    assert zone.names("incoming") == []


def test_modes_on_a_disk(tmp_path: Path) -> None:
    zone = Zone(tmp_path / "state" / "zone")
    with zone.draft() as draft:
        assert stat.S_IMODE(Path(draft.name).stat().st_mode) == 0o600
        draft.write(b"1")
        zone.publish(draft, "a/b/c")
    for path in [*(tmp_path / "state").rglob("*"), tmp_path / "state"]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if path.is_file() else 0o700), path


def test_bytes_reach_the_disk_before_their_name_and_the_name_before_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order that a power cut needs: file, rename, folder; and new folders in theirs."""
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        calls.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink()}")
        fsync(descriptor)

    def renamed(self: Path, target: str) -> Path:
        calls.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    Zone(tmp_path / "zone").write("raw/ab/digest", b"x" * 100)
    before, after = calls[: calls.index("rename")], calls[calls.index("rename") + 1 :]
    assert any("/incoming/" in call for call in before)
    assert after == [f"fsync {tmp_path}/zone/raw/ab"]
    assert {f"fsync {tmp_path}/zone/raw", f"fsync {tmp_path}/zone", f"fsync {tmp_path}"} <= set(before)


def test_a_killed_writer_leaves_no_half_file(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom connectors.zone import Zone\n"
        f"zone = Zone({str(tmp_path / 'zone')!r})\n"
        "with zone.draft() as draft:\n    draft.write(b'x' * 1000000); draft.flush(); print('ready', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    zone = Zone(tmp_path / "zone")
    assert zone.names("") == ["incoming"]
    (left,) = (tmp_path / "zone" / "incoming").iterdir()
    zone.sweep()
    assert left.exists()  # its run might still be going on
    os.utime(left, (time.time() - 100_000,) * 2)
    zone.sweep()
    assert not left.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="a small file system is mounted as root only")
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], check=True)
    try:
        zone = Zone(tmp_path)
        with pytest.raises(RetriableError) as full:
            zone.write("a", b"x" * (2 << 20))
        assert full.value.code == "landing-full"
        zone.write("a", b"x")
        assert zone.read("a") == b"x" and zone.names("incoming") == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_what_cannot_be_used_is_told_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FatalError) as refused:
        Zone("nosuchkind://hub:hush@there/zone")
    assert refused.value.code == "landing-unusable" and "hush" not in str(refused.value)
    with kinds.sftp(tmp_path) as url:
        Zone(url).write("a", b"1")
    with pytest.raises(RetriableError) as gone:
        Zone(url).write("a", b"2")
    assert gone.value.code == "landing-unreachable" and kinds.PASSWORD not in str(gone.value)
    with kinds.bucket(monkeypatch) as url:
        with pytest.raises(FatalError) as missing:
            Zone("s3://no-such-bucket-here/x").write("a", b"1")
        assert missing.value.code == "landing-unusable"
