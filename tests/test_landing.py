"""connectors/landing.py: content-addressed, immutable, checked when read."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import os
import stat
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.errors import FatalError
from connectors.landing import CHUNK, LandedFile, Landing

DATA = b"a,b\n1,2\n" * 100_000


@pytest.fixture(params=["local", "memory"])
def landing(request: pytest.FixtureRequest, tmp_path: Path) -> Landing:
    return Landing(tmp_path / "zone" if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def test_put_and_open(landing: Landing) -> None:
    landed = landing.put(io.BytesIO(DATA), "a.csv")
    assert landed.digest == hashlib.sha256(DATA).hexdigest()
    assert landed.size == len(DATA)
    assert landed.path == f"raw/{landed.digest[:2]}/{landed.digest}"
    assert landing.open(landed).read() == DATA
    landing.verify(landed)
    assert LandedFile.from_dict(landed.to_dict()) == landed


def test_forms_of_data_land_once(landing: Landing) -> None:
    parts = [DATA[i : i + 1000] for i in range(0, len(DATA), 1000)]
    one, two, three = landing.put(DATA, "x"), landing.put(iter(parts), "x"), landing.put(io.BytesIO(DATA), "x")
    assert one == two == three
    assert landing.put(b"", "empty").size == 0


def test_modes_and_no_leftovers(tmp_path: Path) -> None:
    landing = Landing(tmp_path / "state" / "zone")
    landed = landing.put(DATA, "a.csv")
    landing.put(DATA, "again.csv")
    landing.write_manifest("s", "b", [landed], fetched_at=dt.datetime.now(dt.UTC))
    paths = list((tmp_path / "state").rglob("*"))
    assert len([path for path in paths if path.is_file()]) == 2
    for path in [*paths, tmp_path / "state"]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if path.is_file() else 0o700), path


def test_broken_stream_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        Landing(tmp_path).put(broken(), "a.csv")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"X" + data[1:]])
def test_altered_file_is_found(tmp_path: Path, change: object) -> None:
    landing = Landing(tmp_path)
    landed = landing.put(DATA, "a.csv")
    assert callable(change)
    (tmp_path / landed.path).write_bytes(change(DATA))
    with pytest.raises(FatalError) as caught:
        landing.open(landed).read()
    assert caught.value.code == "landed-file-altered"


def test_never_overwritten(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    landed = landing.put(DATA, "a.csv")
    before = (tmp_path / landed.path).stat()
    landing.put(DATA, "a.csv")
    after = (tmp_path / landed.path).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    (tmp_path / landed.path).write_bytes(b"cut")
    with pytest.raises(FatalError):
        landing.put(DATA, "a.csv")
    assert (tmp_path / landed.path).read_bytes() == b"cut"


def test_what_killed_runs_left_goes_after_a_day(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    landing.put(DATA, "a.csv")
    old, young = tmp_path / "incoming" / "old", tmp_path / "incoming" / "young"
    for path in (old, young):
        path.write_bytes(b"half")
    day_before = time.time() - 100_000
    os.utime(old, (day_before, day_before))
    landing.write_manifest("s", "b", [], fetched_at=dt.datetime.now(dt.UTC))
    assert (old.exists(), young.exists()) == (False, True)


def test_missing_file(landing: Landing) -> None:
    with pytest.raises(FatalError) as caught:
        landing.open(LandedFile("0" * 64, "a.csv", 1, "raw/00/" + "0" * 64))
    assert caught.value.code == "landed-file-missing"


def test_streams_in_bounded_memory(tmp_path: Path) -> None:
    """No more than a chunk is asked for at once, either way."""
    asked = []

    class Endless(io.RawIOBase):
        left = 40 * CHUNK

        def read(self, size: int = -1) -> bytes:
            asked.append(size)
            size = min(size, self.left)
            self.left -= size
            return bytes(size)

    landing = Landing(tmp_path)
    landed = landing.put(Endless(), "zeros")  # type: ignore[arg-type]
    assert landed.size == 40 * CHUNK
    assert set(asked) == {CHUNK}
    landing.verify(landed)


def test_many_at_once(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    found: list[LandedFile] = []
    threads = [threading.Thread(target=lambda: found.append(landing.put(DATA, "a.csv"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    landing.verify(found[0])


def test_manifest(landing: Landing) -> None:
    files = [landing.put(b"1", "一.csv"), landing.put(b"2", "b.csv")]
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    path = landing.write_manifest("sh-x", "b1", files, fetched_at=moment, request={"pattern": "*.csv"})
    assert path == "manifests/sh-x/b1.json"
    read = landing.read_manifest("sh-x", "b1")
    assert (read.files, read.fetched_at, read.request) == (tuple(files), moment, {"pattern": "*.csv"})
    landing.write_manifest("sh-x", "b1", files[:1], fetched_at=moment)
    assert landing.read_manifest("sh-x", "b1").files == (files[0],)


def test_manifest_missing_broken_or_elsewhere(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    with pytest.raises(FatalError) as caught:
        landing.read_manifest("s", "none")
    assert caught.value.code == "manifest-missing"
    landing.write_manifest("s", "b", [], fetched_at=dt.datetime.now(dt.UTC))
    (tmp_path / "manifests/s/b.json").write_text("{")
    with pytest.raises(FatalError) as caught:
        landing.read_manifest("s", "b")
    assert caught.value.code == "manifest-invalid"
    with pytest.raises(ValueError, match="names"):
        landing.write_manifest("../s", "b", [], fetched_at=dt.datetime.now(dt.UTC))
