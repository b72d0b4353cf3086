"""Files at any fsspec URL that appear whole or not at all, and are private where the file system knows modes.

What is to be published is written to a draft first. On a local disk the draft lies in ``incoming/`` and is renamed after its
bytes, and then its folder, have reached the disk: what was published survives a power cut. An object store shows an object
when its upload is complete. Elsewhere (SFTP and the like) the draft is uploaded to ``incoming/`` and renamed there.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from connectors.errors import FatalError, RetriableError, YiciError

OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss"}
BLOCK = 8 << 20  # of an upload, kept in memory
UNFINISHED = dt.timedelta(days=1)


class Zone:
    """The tree at ``url``: a local path or anything fsspec knows, its endpoint and keys from the environment.

    Paths are relative to it. Operations raise FatalError ``landing-unusable``, RetriableError ``landing-full`` or
    ``landing-unreachable``.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.shown = re.sub(r"(?<=://)[^/@]*@", "", os.fspath(url))  # an address may carry a password
        try:
            self._fs, self._root = fsspec.url_to_fs(os.fspath(url))
        except (ValueError, ImportError) as error:
            raise FatalError("landing-unusable", landing=self.shown, reason=type(error).__name__) from None
        except Exception as error:  # some connect at once
            raise RetriableError("landing-unreachable", landing=self.shown, reason=type(error).__name__) from error
        self._local = isinstance(self._fs, LocalFileSystem)
        kinds = (self._fs.protocol,) if isinstance(self._fs.protocol, str) else self._fs.protocol
        self._whole = not OBJECT_STORES.isdisjoint(kinds)

    @contextmanager
    def draft(self) -> Iterator[IO[bytes]]:
        """An empty file, on this machine and nobody else's to read, for what will be published; gone with the block."""
        if not self._local:
            with tempfile.TemporaryFile() as file:  # without a name: gone with the process too
                yield file
            return
        path = self._absolute(f"incoming/{uuid.uuid4().hex}")
        with self._reached():
            self._make_parent(path)
            Path(path).touch(0o600, exist_ok=False)
        try:
            with open(path, "r+b") as file:
                yield file
        finally:
            Path(path).unlink(missing_ok=True)

    def publish(self, draft: IO[bytes], relative: str) -> None:
        """Let the draft appear at ``relative``, in one step, in place of what was there."""
        path = self._absolute(relative)
        with self._reached():
            if self._local:
                draft.flush()
                os.fsync(draft.fileno())
                self._make_parent(path)
                Path(draft.name).replace(path)
                _sync_folder(path.rpartition("/")[0])
                return
            target = path if self._whole else self._absolute(f"incoming/{uuid.uuid4().hex}")
            size = draft.seek(0, os.SEEK_END)
            draft.seek(0)
            try:
                try:
                    self._upload(draft, target)
                except FileNotFoundError as error:  # no such bucket
                    raise FatalError("landing-unusable", landing=self.shown, reason=type(error).__name__) from error
                if self._fs.size(target) != size:
                    raise OSError(errno.EIO, "upload cut short")
                if target != path:
                    self._make_parent(path)
                    self._fs.mv(target, path)
            except BaseException:
                if target != path:
                    with contextlib.suppress(Exception):
                        self._fs.rm_file(target)
                raise

    def write(self, relative: str, content: bytes) -> None:
        """Publish a few bytes."""
        with self.draft() as draft:
            with self.writing():
                draft.write(content)
            self.publish(draft, relative)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around writes to a draft: a full disk becomes ``landing-full``."""
        with self._reached():
            yield

    def size(self, relative: str) -> int | None:
        """Bytes of a file, None when there is none."""
        with self._reached():
            try:
                self._fs.invalidate_cache(self._absolute(relative))
                return int(self._fs.size(self._absolute(relative)))
            except FileNotFoundError:
                return None

    def open(self, relative: str) -> IO[bytes]:
        """FileNotFoundError when there is none."""
        with self._reached():
            return cast(IO[bytes], self._fs.open(self._absolute(relative), "rb"))

    def read(self, relative: str) -> bytes:
        """A small file whole. FileNotFoundError when there is none."""
        with self._reached():
            return cast(bytes, self._fs.cat_file(self._absolute(relative)))

    def names(self, relative: str) -> list[str]:
        """Names in a folder, in order; none when there is no such folder."""
        with self._reached():
            try:
                self._fs.invalidate_cache(self._absolute(relative))
                found = self._fs.ls(self._absolute(relative), detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted({path.rstrip("/").rpartition("/")[2] for path in found} - {""})

    def weight(self, relative: str) -> tuple[int, int]:
        """Files below a folder, and their bytes."""
        with self._reached():
            found = self._fs.find(self._absolute(relative), detail=True, withdirs=False)
        return len(found), sum(int(entry["size"] or 0) for entry in found.values())

    def move(self, relative: str, target: str) -> None:
        with self._reached():
            self._make_parent(self._absolute(target))
            self._fs.mv(self._absolute(relative), self._absolute(target))

    def remove_file(self, relative: str) -> None:
        """One file; nothing happens when there is none."""
        with self._reached(), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._absolute(relative))

    def remove(self, relative: str) -> None:
        """A folder with all below it; nothing happens when there is none."""
        with self._reached(), contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._absolute(relative), recursive=True)

    def sweep(self) -> None:
        """What killed runs left half-written is personal data too: gone after a day, when no run can still own it."""
        if self._whole:
            return
        oldest = dt.datetime.now(dt.UTC) - UNFINISHED
        for name in self.names("incoming"):
            path = self._absolute(f"incoming/{name}")
            with self._reached(), contextlib.suppress(FileNotFoundError):
                if self._fs.modified(path) < oldest:
                    self._fs.rm_file(path)

    def _absolute(self, relative: str) -> str:
        return f"{self._root.rstrip('/')}/{relative}"

    def _make_parent(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if not self._local:
            if not self._whole:  # object stores have no folders
                self._fs.makedirs(parent, exist_ok=True)
            return
        missing = []
        folder = Path(parent)
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):  # makedirs(mode=) would leave the parents open
            folder.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(folder.parent)

    def _upload(self, draft: IO[bytes], target: str) -> None:
        self._make_parent(target)
        stream: Any = self._fs.open(target, "wb", block_size=BLOCK)
        try:
            shutil.copyfileobj(draft, stream, BLOCK)
        except BaseException:
            # Closing completes an upload, also that of a file of which only half was written.
            with contextlib.suppress(Exception):
                getattr(stream, "discard", stream.close)()
            stream.closed = True
            raise
        stream.close()

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Errors of the file system, each of which has its own, as ours; a missing file is the caller's matter."""
        try:
            yield
        except (YiciError, FileNotFoundError):
            raise
        except PermissionError as error:
            raise FatalError("landing-unusable", landing=self.shown, reason=type(error).__name__) from error
        except Exception as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise RetriableError("landing-full", landing=self.shown) from error
            if self._local:
                raise
            raise RetriableError("landing-unreachable", landing=self.shown, reason=type(error).__name__) from error


def _sync_folder(folder: str | os.PathLike[str]) -> None:
    """A name is on the disk when its folder is."""
    with contextlib.suppress(OSError):  # some mounted file systems cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
