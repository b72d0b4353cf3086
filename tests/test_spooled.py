"""connectors/spooled.py: any stream as one that can seek, its copy gone with it."""

from __future__ import annotations

import gzip
import io
import tempfile
from pathlib import Path
from typing import Any

import pytest

from connectors import spooled
from connectors.errors import FatalError
from connectors.landing import Landing


def test_a_landed_file_is_copied_and_the_copy_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spool"))
    (tmp_path / "spool").mkdir()
    landing = Landing(tmp_path / "landing")
    landed = landing.put(b"abc" * 1000, "x")
    with spooled.seekable(lambda: landing.open(landed), "x") as stream:
        assert stream.seek(-3, io.SEEK_END) == 2997
        assert stream.read() == b"abc"
        assert list((tmp_path / "spool").iterdir()) == []


def test_an_altered_landed_file_is_found_before_it_is_parsed(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    landed = landing.put(b"abc", "x")
    (tmp_path / landed.path).write_bytes(b"abd")
    with pytest.raises(FatalError) as caught, spooled.seekable(lambda: landing.open(landed), "x"):
        pass
    assert caught.value.code == "landed-file-altered"


@pytest.mark.parametrize("wrap", [io.BytesIO, lambda data: io.BufferedReader(_Forward(data))])
def test_limit(wrap: Any) -> None:
    with spooled.seekable(lambda: wrap(b"x" * 100), "x", 100) as stream:
        assert stream.read(1) == b"x"
    with pytest.raises(FatalError) as caught, spooled.seekable(lambda: wrap(b"x" * 101), "x", 100):
        pass
    assert caught.value.code == "file-too-large"


def test_a_packed_file_is_unpacked_or_refused() -> None:
    packed = gzip.compress(b"content" * 1000)
    with spooled.seekable(lambda: io.BytesIO(packed), "x") as stream:
        assert stream.read(7) == b"content"
        assert stream.seek(0, io.SEEK_END) == 7000
    with pytest.raises(FatalError) as caught, spooled.seekable(lambda: io.BytesIO(packed[:-9]), "x"):
        pass
    assert caught.value.code == "file-packed-damaged"


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "file-empty"), (b"\xef\xbb\xbf \n", "file-empty"), (b"\n<!DOCTYPE html>", "file-is-html")],
)
def test_head_refuses_what_is_no_binary_file(content: bytes, code: str) -> None:
    with pytest.raises(FatalError) as caught:
        spooled.head(io.BytesIO(content), "x")
    assert caught.value.code == code


def test_head_leaves_the_stream_at_its_start() -> None:
    stream = io.BytesIO(b"PK\x03\x04rest")
    assert spooled.head(stream, "x").startswith(b"PK")
    assert stream.tell() == 0


class _Forward(io.RawIOBase):
    """A stream that only goes forward."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer)
