"""The landing zone: raw bytes exactly as they came, addressed by their SHA-256, kept by month, on any fsspec URL.

::

    raw/<yyyy-mm>/<2 hex>/<digest>              immutable; within a month (UTC) the same bytes land once
    manifests/<yyyy-mm>/<source>/<batch>.json   which files make up a batch; the month the batch began
    merges/<yyyy-mm>/<source>/<number>.json     which batches were merged, in order (hub/journal.py)
    damaged/<yyyy-mm>/…                         what was found altered when the same bytes came again
    checkpoints/<time>/                         what a rebuild can start from (hub/checkpoint.py)
    dropped.json                                the first day from which all of this is here, once a month was dropped
    deposits/<yyyy-mm>/<2 hex>/<digest>         what applicants handed in, and what was said of it (hub/deposits.py)
    shares/<agreement>/                         tables shared with partner hubs (hub/exchange/share_files.py)

A month is dropped whole when it is no longer needed (hub/retention.py), so nothing in it serves another; deposits stay. Zones of older
releases have no months (``raw/<2 hex>/…``, ``manifests/<source>/…``): they are read as they are.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, Any, cast

import orjson

from connectors.errors import FatalError
from connectors.zone import Zone

CHUNK = 1 << 20
DROPPED = "dropped.json"  # since when months are here
MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")
_BEGUN = re.compile(r"(?:^|-)([0-9]{4})([0-9]{2})[0-9]{2}T[0-9]{6}")  # in the id of a batch
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LandedFile:
    """One landed file: ``digest`` SHA-256 in hex, ``size`` in bytes, ``path`` relative to the landing zone."""

    digest: str
    name: str
    size: int
    path: str

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LandedFile:
        return cls(str(data["digest"]), str(data["name"]), int(data["size"]), str(data["path"]))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Manifest:
    """What one batch was made of. ``request`` tells how it was asked for: no secret, no personal identifier."""

    source: str
    batch: str
    fetched_at: dt.datetime
    files: tuple[LandedFile, ...]
    request: dict[str, Any] = field(default_factory=dict)


class Landing:
    """A landing zone at ``url``: a local path or anything fsspec knows. Errors of the place itself: :class:`Zone`."""

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.url = os.fspath(url)
        self.zone = Zone(url)

    def put(self, data: bytes | IO[bytes] | Iterable[bytes], name: str, folder: str = "raw") -> LandedFile:
        """Lands ``data`` under its digest, streaming in bounded memory; nothing is visible before it is complete.

        When it returns, the bytes are on the disk, or the store has confirmed them.
        """
        digest, size = hashlib.sha256(), 0
        month = f"{dt.datetime.now(dt.UTC):%Y-%m}"
        with self.zone.draft() as draft:
            for chunk in _chunks(data):
                digest.update(chunk)
                size += len(chunk)
                with self.zone.writing():
                    draft.write(chunk)
            hexadecimal = digest.hexdigest()
            landed = LandedFile(hexadecimal, name, size, f"{folder}/{month}/{hexadecimal[:2]}/{hexadecimal}")
            if not self._stands(landed):
                self.zone.publish(draft, landed.path)
        return landed

    def open(self, landed: LandedFile) -> IO[bytes]:
        """A stream over the landed bytes; reading to the end finds a changed file (``landed-file-altered``)."""
        size = self.zone.size(landed.path)
        if size is not None and size != landed.size:
            raise _altered(landed)
        try:
            stream = self.zone.open(landed.path)
        except FileNotFoundError:
            shown = self.zone.shown
            raise FatalError("landed-file-missing", file=landed.name, digest=landed.digest, landing=shown) from None
        return cast(IO[bytes], io.BufferedReader(_Verified(stream, landed), CHUNK))

    def verify(self, landed: LandedFile) -> None:
        """Reads the whole file; FatalError when it is not what was landed."""
        with self.open(landed) as stream:
            while stream.read(CHUNK):
                pass

    def write_manifest(
        self,
        source: str,
        batch: str,
        files: Sequence[LandedFile],
        *,
        fetched_at: dt.datetime,
        request: dict[str, Any] | None = None,
    ) -> str:
        """Writes the manifest of a batch, in one step, and returns its path; writing it again replaces it."""
        content = {
            "source": source,
            "batch": batch,
            "fetched_at": fetched_at,
            "request": request or {},
            "files": [landed.to_dict() for landed in files],
        }
        month = _begun(batch) or f"{fetched_at.astimezone(dt.UTC):%Y-%m}"
        relative = f"manifests/{month}/{_name(source, batch)}"
        self.zone.write(relative, orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z))
        self.zone.sweep()
        return relative

    def read_manifest(self, source: str, batch: str) -> Manifest:
        """The manifest of a batch. FatalError ``manifest-missing`` or ``manifest-invalid``."""
        name = _name(source, batch)
        for folder in self._manifest_folders(batch):
            relative = f"{folder}/{name}"
            try:
                data = orjson.loads(self.zone.read(relative))
                return Manifest(
                    source=data["source"],
                    batch=data["batch"],
                    fetched_at=dt.datetime.fromisoformat(data["fetched_at"]),
                    files=tuple(LandedFile.from_dict(entry) for entry in data["files"]),
                    request=data["request"],
                )
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError):
                raise FatalError("manifest-invalid", manifest=relative, landing=self.zone.shown) from None
        raise FatalError("manifest-missing", manifest=name, landing=self.zone.shown)

    def batches(self, since: str = "") -> Iterator[tuple[str, str]]:
        """(source, batch) of every manifest, by month, source and batch; ``since``: from this month (yyyy-mm) on.

        Those of older releases, which have no month, come first, unless ``since`` is given.
        """
        found = self.zone.names("manifests")
        undated = [] if since else ["manifests/" + name for name in found if not MONTH.fullmatch(name)]
        dated = [f"manifests/{month}" for month in found if MONTH.fullmatch(month) and month >= since]
        folders = [*undated, *(f"{month}/{source}" for month in dated for source in self.zone.names(month))]
        for folder in folders:
            for name in self.zone.names(folder):
                if name.endswith(".json"):
                    yield folder.rpartition("/")[2], name.removesuffix(".json")

    def months(self) -> list[str]:
        """Months (yyyy-mm) in which something lies, in order."""
        found = {name for folder in ("raw", "manifests", "merges", "damaged") for name in self.zone.names(folder)}
        return sorted(name for name in found if MONTH.fullmatch(name))

    def weight(self, month: str) -> tuple[int, int]:
        """Landed files of a month, and their bytes."""
        return self.zone.weight(f"raw/{month}")

    def drop(self, month: str) -> None:
        """Delete a month whole, and note it first (:meth:`since`). The caller has made sure that nobody needs it
        (hub/retention.py)."""
        if not MONTH.fullmatch(month):
            raise ValueError("a month is yyyy-mm")
        year, number = int(month[:4]), int(month[5:])
        following = dt.date(year + number // 12, number % 12 + 1, 1)
        self.zone.write(DROPPED, orjson.dumps({"since": max(following, self.since() or following)}))
        for folder in ("manifests", "merges", "raw", "damaged"):
            self.zone.remove(f"{folder}/{month}")

    def since(self) -> dt.date | None:
        """The first day from which all is there; None when nothing was ever dropped. FatalError ``landing-note-invalid``."""
        try:
            return dt.date.fromisoformat(orjson.loads(self.zone.read(DROPPED))["since"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise FatalError("landing-note-invalid", note=DROPPED, landing=self.zone.shown) from None

    def _stands(self, landed: LandedFile) -> bool:
        """Whether these very bytes lie there. What is not they, whatever happened to it, is set aside and kept."""
        if self.zone.size(landed.path) is None:
            return False
        try:
            self.verify(landed)
        except FatalError as error:
            if error.code == "landed-file-altered":
                _log.warning("landed file %s was altered; set aside, its bytes landed again", landed.digest)
                month = landed.path.split("/")[1]
                self.zone.move(landed.path, f"damaged/{month}/{landed.digest}.{secrets.token_hex(4)}")
            return False
        return True

    def _manifest_folders(self, batch: str) -> Iterator[str]:
        if month := _begun(batch):
            yield f"manifests/{month}"
        else:
            yield from (f"manifests/{name}" for name in reversed(self.zone.names("manifests")) if MONTH.fullmatch(name))
        yield "manifests"


class _Verified(io.RawIOBase):
    """Passes bytes through and compares size and digest when the end is reached."""

    def __init__(self, stream: IO[bytes], landed: LandedFile) -> None:
        self._stream, self._landed = stream, landed
        self._digest, self._seen, self._ended = hashlib.sha256(), 0, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = int(self._stream.readinto(buffer) or 0)  # type: ignore[attr-defined]  # without a copy
        if count:
            self._digest.update(memoryview(buffer)[:count])
            self._seen += count
        elif not self._ended:
            self._ended = True
            if self._seen != self._landed.size or self._digest.hexdigest() != self._landed.digest:
                raise _altered(self._landed)
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def _altered(landed: LandedFile) -> FatalError:
    return FatalError("landed-file-altered", file=landed.name, digest=landed.digest, path=landed.path)


def _chunks(data: bytes | IO[bytes] | Iterable[bytes]) -> Iterator[bytes]:
    if isinstance(data, (bytes, bytearray, memoryview)):
        yield bytes(data)
    elif hasattr(data, "read"):
        while chunk := data.read(CHUNK):
            yield chunk
    else:
        yield from data


def _begun(batch: str) -> str | None:
    """The month that the id of a batch names (hub/batches.py, hub/decisions.py)."""
    found = _BEGUN.search(batch)
    return f"{found[1]}-{found[2]}" if found else None


def _name(source: str, batch: str) -> str:
    if any(part in ("", ".", "..") or "/" in part for part in (source, batch)):
        raise ValueError("source and batch are names, not paths")
    return f"{source}/{batch}.json"
