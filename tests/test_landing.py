"""connectors/landing.py: content-addressed, immutable, checked when read."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from connectors import landing as module
from connectors.errors import FatalError
from connectors.landing import CHUNK, LandedFile, Landing
from tests import zones

DATA = b"a,b\n1,2\n" * 100_000


MONTH = f"{dt.datetime.now(dt.UTC):%Y-%m}"


@pytest.fixture(params=["local", "memory", "s3"])
def landing(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Landing]:
    with zones.of(request.param, tmp_path, monkeypatch) as url:
        yield Landing(url)


def altered(landing: Landing, path: str, content: bytes) -> None:
    """As a fault of the disk, or somebody, leaves it."""
    landing.zone.write(path, content)


def test_put_and_open(landing: Landing) -> None:
    landed = landing.put(io.BytesIO(DATA), "a.csv")
    assert landed.digest == hashlib.sha256(DATA).hexdigest()
    assert landed.size == len(DATA)
    assert landed.path == f"raw/{MONTH}/{landed.digest[:2]}/{landed.digest}"
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


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: b"X" + data[1:]], ids=["cut", "flipped"])
def test_fetching_again_sets_an_altered_file_aside(landing: Landing, change: Callable[[bytes], bytes]) -> None:
    landed = landing.put(DATA, "a.csv")
    altered(landing, landed.path, change(DATA))
    with pytest.raises(FatalError) as caught:
        landing.open(landed).read()
    assert caught.value.code == "landed-file-altered" and landed.path in caught.value.advice("en")
    assert landing.put(DATA, "a.csv") == landed
    landing.verify(landed)
    (aside,) = landing.zone.names(f"damaged/{MONTH}")
    assert aside.startswith(landed.digest)
    assert landing.zone.read(f"damaged/{MONTH}/{aside}") == change(DATA)


def test_the_next_month_has_the_same_bytes_of_its_own(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or dropping one month would take them from the other."""

    class Later(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Later:
            return cls(2031, 2, 3, tzinfo=tz)

    first = landing.put(DATA, "a.csv")
    monkeypatch.setattr(module.dt, "datetime", Later)
    second = landing.put(DATA, "a.csv")
    monkeypatch.undo()
    assert second.path == f"raw/2031-02/{second.digest[:2]}/{second.digest}"
    assert landing.months() == [MONTH, "2031-02"]
    assert landing.weight("2031-02") == (1, len(DATA))
    landing.drop("2031-02")
    landing.verify(first)
    assert landing.months() == [MONTH]
    with pytest.raises(ValueError, match="yyyy-mm"):
        landing.drop("..")


def test_zones_of_older_releases_are_read(landing: Landing) -> None:
    digest = hashlib.sha256(DATA).hexdigest()
    old = LandedFile(digest, "a.csv", len(DATA), f"raw/{digest[:2]}/{digest}")
    landing.zone.write(old.path, DATA)
    content = {"source": "sh-x", "batch": "sh-x-20250304T050607-abcdef", "fetched_at": "2025-03-04T05:06:07+00:00",
               "request": {}, "files": [old.to_dict()]}  # fmt: skip
    landing.zone.write("manifests/sh-x/sh-x-20250304T050607-abcdef.json", orjson.dumps(content))
    assert landing.read_manifest("sh-x", "sh-x-20250304T050607-abcdef").files == (old,)
    landing.verify(old)
    new = landing.put(DATA, "a.csv")
    landing.write_manifest("sh-x", "sh-x-20260304T050607-abcdef", [new], fetched_at=dt.datetime.now(dt.UTC))
    assert list(landing.batches()) == [("sh-x", "sh-x-20250304T050607-abcdef"), ("sh-x", "sh-x-20260304T050607-abcdef")]
    assert list(landing.batches("2026-03")) == [("sh-x", "sh-x-20260304T050607-abcdef")]
    assert list(landing.batches("2026-04")) == []


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
    for batch, month in (
        ("b1", "2026-01"),
        ("sh-x-20251231T235958-abcdef", "2025-12"),
        ("20251130T000000123-ab", "2025-11"),
    ):
        path = landing.write_manifest("sh-x", batch, files, fetched_at=moment, request={"pattern": "*.csv"})
        assert path == f"manifests/{month}/sh-x/{batch}.json"
        read = landing.read_manifest("sh-x", batch)
        assert (read.files, read.fetched_at, read.request) == (tuple(files), moment, {"pattern": "*.csv"})
    landing.write_manifest("sh-x", "b1", files[:1], fetched_at=moment)
    assert landing.read_manifest("sh-x", "b1").files == (files[0],)


def test_manifest_missing_broken_or_elsewhere(landing: Landing) -> None:
    for batch in ("none", "sh-x-20251231T235958-abcdef"):
        with pytest.raises(FatalError) as caught:
            landing.read_manifest("s", batch)
        assert caught.value.code == "manifest-missing"
    path = landing.write_manifest("s", "b", [], fetched_at=dt.datetime.now(dt.UTC))
    altered(landing, path, b"{")
    with pytest.raises(FatalError) as caught:
        landing.read_manifest("s", "b")
    assert caught.value.code == "manifest-invalid"
    with pytest.raises(ValueError, match="names"):
        landing.write_manifest("../s", "b", [], fetched_at=dt.datetime.now(dt.UTC))
