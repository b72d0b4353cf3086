"""A landed stream as a file that can be read at any place, for the formats whose index stands at the end."""

from __future__ import annotations

import gzip
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from connectors.errors import FatalError
from connectors.textfile import Opener, unpacked

CHUNK = 1 << 20


@contextmanager
def seekable(opener: Opener, name: str, limit: int | None = None) -> Iterator[IO[bytes]]:
    """The stream itself where it can seek, else a temporary copy of it, without the gzip layer if it has one.

    The copy has no name on disk and goes with the process, whatever ends it: what is in it is personal data. Reading the
    stream to its end also proves that it is what was landed. FatalError ``file-too-large`` above ``limit`` bytes,
    ``file-packed-damaged``.
    """
    plain = unpacked(opener)
    with plain() as stream:
        if plain is opener and stream.seekable():  # a packed stream could seek too, by unpacking again and again
            if limit is not None and stream.seek(0, 2) > limit:
                raise _too_large(name, limit)
            stream.seek(0)
            yield stream
            return
        with tempfile.TemporaryFile(prefix="yici-") as copy:
            size = 0
            while chunk := _read(stream, name):
                size += len(chunk)
                if limit is not None and size > limit:
                    raise _too_large(name, limit)
                copy.write(chunk)
            copy.seek(0)
            yield cast(IO[bytes], copy)


def _read(stream: IO[bytes], name: str) -> bytes:
    try:
        return stream.read(CHUNK)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise FatalError("file-packed-damaged", file=name) from None


def head(stream: IO[bytes], name: str) -> bytes:
    """The first bytes of what should be a binary file. FatalError ``file-empty`` or ``file-is-html``."""
    found = stream.read(8192)
    stream.seek(0)
    start = found.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    if not start:
        raise FatalError("file-empty", file=name)
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        raise FatalError("file-is-html", file=name)
    return found


def _too_large(name: str, limit: int) -> FatalError:
    return FatalError("file-too-large", file=name, megabytes=limit >> 20)
