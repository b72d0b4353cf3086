"""What kind of file it is, by its own bytes: what a caller declares is only believed when they agree."""

from __future__ import annotations

import zipfile
from typing import IO

PDF, JPEG, PNG, OFD = "application/pdf", "image/jpeg", "image/png", "application/ofd"
KINDS = (PDF, JPEG, PNG, OFD)
# How it begins, and the bytes that the smallest of its kind has: a beginning alone is none.
_MAGIC = ((b"%PDF-", PDF, 67), (b"\xff\xd8\xff", JPEG, 107), (b"\x89PNG\r\n\x1a\n", PNG, 67))
_OFD_ROOT = "OFD.xml"  # GB/T 33190: the entrance of a package
_ZIP = b"PK\x03\x04"
_MOST_ENTRIES = 10_000
_END = 22 + 65_535  # bytes in which the end of a ZIP directory stands


def sniffed(file: IO[bytes]) -> str | None:
    """One of :data:`KINDS`, or None. Nothing is unpacked; ``file`` stands at its beginning afterwards."""
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    try:
        for magic, kind, least in _MAGIC:
            if head.startswith(magic):
                return kind if size >= least else None
        return OFD if head.startswith(_ZIP) and _is_ofd(file) else None
    finally:
        file.seek(0)


def _is_ofd(file: IO[bytes]) -> bool:
    """The directory is read only where its end says that it is not huge."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END))
    end = file.read()
    place = end.rfind(b"PK\x05\x06")
    if place < 0 or int.from_bytes(end[place + 10 : place + 12], "little") > _MOST_ENTRIES:
        return False
    try:
        with zipfile.ZipFile(file) as package:
            return _OFD_ROOT in package.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeDecodeError):
        return False
