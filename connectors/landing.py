"""The landing zone: raw bytes exactly as they came, addressed by their SHA-256, on any fsspec URL.

::

    raw/<2 hex>/<digest>              immutable; the same bytes land once
    manifests/<source>/<batch>.json   which files make up a batch

On a local file system files have mode 0600 and folders 0700: what lands here is personal data.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import io
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import fsspec
import orjson
from fsspec.implementations.local import LocalFileSystem

from connectors.errors import FatalError

CHUNK = 1 << 20
UNFINISHED = dt.timedelta(days=1)


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
    """A landing zone at ``url``: a local path or anything fsspec knows."""

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.url = os.fspath(url)
        self._fs, self._root = fsspec.url_to_fs(self.url)
        self._local = isinstance(self._fs, LocalFileSystem)

    def put(self, data: bytes | IO[bytes] | Iterable[bytes], name: str) -> LandedFile:
        """Lands ``data`` under its digest, streaming in bounded memory; nothing is visible before it is complete."""
        digest, size = hashlib.sha256(), 0
        temporary = self._absolute(f"incoming/{uuid.uuid4().hex}")
        self._make_parent(temporary)
        try:
            with self._create(temporary) as target:
                for chunk in _chunks(data):
                    digest.update(chunk)
                    size += len(chunk)
                    target.write(chunk)
                self._sync(target)
            hexadecimal = digest.hexdigest()
            landed = LandedFile(hexadecimal, name, size, f"raw/{hexadecimal[:2]}/{hexadecimal}")
            self._settle(temporary, landed)
        except BaseException:
            self._discard(temporary)
            raise
        return landed

    def open(self, landed: LandedFile) -> IO[bytes]:
        """A stream over the landed bytes; reading to the end finds a changed file (``landed-file-altered``)."""
        path = self._absolute(landed.path)
        try:
            size = self._fs.size(path)
            stream = self._fs.open(path, "rb")
        except FileNotFoundError:
            raise FatalError("landed-file-missing", file=landed.name, digest=landed.digest, landing=self.url) from None
        if size is not None and size != landed.size:
            stream.close()
            raise _altered(landed)
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
        relative = _manifest_path(source, batch)
        path, temporary = self._absolute(relative), self._absolute(f"incoming/{uuid.uuid4().hex}")
        self._make_parent(temporary)
        self._make_parent(path)
        try:
            with self._create(temporary) as target:
                target.write(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z))
                self._sync(target)
            self._replace(temporary, path)
        except BaseException:
            self._discard(temporary)
            raise
        self._sweep()
        return relative

    def read_manifest(self, source: str, batch: str) -> Manifest:
        """The manifest of a batch. FatalError ``manifest-missing`` or ``manifest-invalid``."""
        relative = _manifest_path(source, batch)
        try:
            data = orjson.loads(self._fs.cat_file(self._absolute(relative)))
            return Manifest(
                source=data["source"],
                batch=data["batch"],
                fetched_at=dt.datetime.fromisoformat(data["fetched_at"]),
                files=tuple(LandedFile.from_dict(entry) for entry in data["files"]),
                request=data["request"],
            )
        except FileNotFoundError:
            raise FatalError("manifest-missing", manifest=relative, landing=self.url) from None
        except (ValueError, KeyError, TypeError):
            raise FatalError("manifest-invalid", manifest=relative, landing=self.url) from None

    def _absolute(self, relative: str) -> str:
        return f"{self._root.rstrip('/')}/{relative}"

    def _make_parent(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if not self._local:
            self._fs.makedirs(parent, exist_ok=True)
            return
        missing = []
        folder = Path(parent)
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):  # makedirs(mode=) would leave the parents open
            folder.mkdir(mode=0o700, exist_ok=True)

    def _create(self, path: str) -> IO[bytes]:
        if self._local:
            return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        return cast(IO[bytes], self._fs.open(path, "wb"))

    def _sync(self, stream: IO[bytes]) -> None:
        if self._local:  # after a power cut a renamed but unwritten file would be empty
            stream.flush()
            os.fsync(stream.fileno())

    def _settle(self, temporary: str, landed: LandedFile) -> None:
        path = self._absolute(landed.path)
        if self._fs.exists(path):
            if self._fs.size(path) != landed.size:
                raise _altered(landed)
            self._discard(temporary)
            return
        self._make_parent(path)
        self._replace(temporary, path)

    def _replace(self, temporary: str, path: str) -> None:
        if self._local:
            Path(temporary).replace(path)
        else:
            self._fs.mv(temporary, path)

    def _sweep(self) -> None:
        """What killed runs left half-written is personal data too: gone after a day, when no run can still own it."""
        oldest = dt.datetime.now(dt.UTC) - UNFINISHED
        with contextlib.suppress(FileNotFoundError, NotImplementedError):
            for path in self._fs.ls(self._absolute("incoming"), detail=False):
                if self._fs.modified(path) < oldest:
                    self._discard(path)

    def _discard(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(path)


class _Verified(io.RawIOBase):
    """Passes bytes through and compares size and digest when the end is reached."""

    def __init__(self, stream: IO[bytes], landed: LandedFile) -> None:
        self._stream, self._landed = stream, landed
        self._digest, self._seen, self._ended = hashlib.sha256(), 0, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        if data:
            self._digest.update(data)
            self._seen += len(data)
            buffer[: len(data)] = data
        elif not self._ended:
            self._ended = True
            if self._seen != self._landed.size or self._digest.hexdigest() != self._landed.digest:
                raise _altered(self._landed)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _altered(landed: LandedFile) -> FatalError:
    return FatalError("landed-file-altered", file=landed.name, digest=landed.digest)


def _chunks(data: bytes | IO[bytes] | Iterable[bytes]) -> Iterator[bytes]:
    if isinstance(data, (bytes, bytearray, memoryview)):
        yield bytes(data)
    elif hasattr(data, "read"):
        while chunk := data.read(CHUNK):
            yield chunk
    else:
        yield from data


def _manifest_path(source: str, batch: str) -> str:
    if any(part in ("", ".", "..") or "/" in part for part in (source, batch)):
        raise ValueError("source and batch are names, not paths")
    return f"manifests/{source}/{batch}.json"
