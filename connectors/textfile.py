"""Landed text: unpacked, its encoding found, cut into blocks of whole lines in UTF-8.

The encodings that may be declared leave the bytes of ASCII controls, comma and quote to those characters, so lines are
cut on raw bytes and every block decodes on its own.
"""

from __future__ import annotations

import codecs
import gzip
import io
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

import numpy as np
import pyarrow as pa

from connectors.errors import FatalError

BLOCK = 4 << 20
LONGEST_LINE = 16 << 20
LINE_END = 10
FEW = 4  # NUL bytes, fewer tell nothing
ENOUGH = 10_000  # characters of several bytes, to tell whether they are UTF-8

Opener = Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Encoding:
    """How a file is to be decoded. ``clean``: strictly and entirely; ``cut``: all but a character cut off at the end."""

    name: str
    clean: bool = True
    cut: bool = False


@dataclass
class TextBlock:
    """Whole lines. ``data``: UTF-8; ``raw``: as in the file; ``bad``: indices of lines that cannot be decoded."""

    data: bytes
    raw: bytes
    bad: list[int] = field(default_factory=list)


def unpacked(opener: Opener) -> Opener:
    """The same file without its gzip layer, if it has one (told by its first bytes, not by its name)."""
    with opener() as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return (lambda: _unzipped(opener())) if packed else opener


class _Unzipped(io.BufferedReader):
    """Closes the file below with itself, which GzipFile leaves open."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._below = stream
        super().__init__(gzip.GzipFile(fileobj=stream, mode="rb"), 1 << 20)

    def close(self) -> None:
        super().close()
        self._below.close()


def _unzipped(stream: IO[bytes]) -> IO[bytes]:
    return _Unzipped(stream)


def refuse_other_kinds(opener: Opener, name: str) -> None:
    """FatalError when the first bytes show an empty file, an HTML page, a spreadsheet or UTF-16."""
    with opener() as stream:
        head = _read(stream, 8192, name, 0)
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise FatalError("file-empty", file=name)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        raise FatalError("file-is-html", file=name)
    if head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise FatalError("file-is-spreadsheet", file=name)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or head.count(0) * 4 > len(head):
        raise undecodable(opener, name, ("utf-8",), 1)


def undecodable(opener: Opener, name: str, encodings: Sequence[str], lines: int) -> FatalError:
    """Why a file cannot be read as text in ``encodings``, as ``lines`` of it cannot: ``file-is-utf-16`` or ``file-encoding``."""
    with opener() as stream:
        wide = _utf_16(_read(stream, 8192, name, 0))
    if wide:
        return FatalError("file-is-utf-16", file=name, encoding=wide)
    return FatalError("file-encoding", file=name, encodings=", ".join(encodings), lines=lines)


def _utf_16(head: bytes) -> str:
    """The name of UTF-16 in which a text begins so; empty when it is another encoding. Where no byte order mark tells, the
    ASCII in it does: commas and line ends, and the NUL beside each mostly on the same side (一 is 4E00)."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    zeros = np.flatnonzero(np.frombuffer(head, np.uint8) == 0) % 2
    if len(zeros) < FEW:
        return ""
    encoding = "UTF-16LE" if zeros.mean() > 0.5 else "UTF-16BE"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return ""
    told = all(unicodedata.category(letter) not in ("Cc", "Cn", "Co") for letter in text if letter not in "\t\r\n")
    return encoding if "\n" in text and told else ""


def line_blocks(stream: IO[bytes], name: str) -> Iterator[bytes]:
    """Blocks of whole lines; only the last may lack its line end. FatalError for a cut gzip file or an endless line."""
    rest, lines = b"", 0
    while chunk := _read(stream, BLOCK, name, lines):
        end = chunk.rfind(b"\n") + 1
        if not end:
            rest += chunk
            if len(rest) > LONGEST_LINE:
                raise FatalError("file-line-too-long", file=name, row=lines + 1)
            continue
        block, rest = b"".join((rest, memoryview(chunk)[:end])), chunk[end:]
        lines += occurrences(block, LINE_END)
        yield block
    if rest:
        yield rest


def occurrences(data: bytes, byte: int) -> int:
    """Like ``data.count``, which stops at each one and takes ten times as long where there are many."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == byte))


def _read(stream: IO[bytes], size: int, name: str, lines: int) -> bytes:
    try:
        return stream.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise FatalError("file-truncated", file=name, row=lines + 1) from None


def find_encoding(opener: Opener, name: str, declared: Sequence[str]) -> Encoding:
    """The first declared encoding that decodes everything, else the one that fails least.

    FatalError ``file-encoding``, or ``file-is-utf-16``, when the header or more than one line in a hundred cannot be decoded by any.
    """
    names = [codecs.lookup(encoding).name for encoding in declared]
    for encoding in names:
        if found := _strict(opener, name, encoding):
            return found
        if encoding == "utf-8" and _mostly_utf8(opener, name):
            names = [encoding]  # a few broken characters, and the file may pass as another encoding, all garbled
            break
    return _least_bad(opener, name, names)


def _strict(opener: Opener, name: str, encoding: str) -> Encoding | None:
    with opener() as stream:
        for block in line_blocks(stream, name):
            if encoding == "utf-8" and _is_utf8(block):
                continue
            try:
                block.decode(encoding)
            except UnicodeDecodeError as error:
                cut = not block.endswith(b"\n") and error.end == len(block) and error.start > block.rfind(b"\n")
                if cut and ("incomplete" in error.reason or "unexpected end" in error.reason):
                    return Encoding(encoding, cut=True)
                return None
    return Encoding(encoding)


def _is_utf8(block: bytes) -> bool:
    """Arrow looks at it without making text of it, five times as fast as ``decode``."""
    ends = pa.py_buffer(np.array([0, len(block)], np.int32))
    try:
        pa.StringArray.from_buffers(1, ends, pa.py_buffer(block)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _mostly_utf8(opener: Opener, name: str) -> bool:
    """Characters of several bytes do not come out valid by chance: in text of another encoding most would fail."""
    good = bad = 0
    with opener() as stream:
        for block in line_blocks(stream, name):
            text = block.decode("utf-8", "replace")
            broken = text.count("\ufffd")
            bad += broken
            good += len(text) - len(text.encode("ascii", "ignore")) - broken
            if good + bad > ENOUGH:
                break
    return good > 3 * bad


def _least_bad(opener: Opener, name: str, declared: Sequence[str]) -> Encoding:
    lines, bad = 0, dict.fromkeys(declared, 0)
    header: dict[str, bool] = {}
    with opener() as stream:
        for block in line_blocks(stream, name):
            lines += occurrences(block, LINE_END) + (not block.endswith(b"\n"))
            for encoding in declared:
                broken = _broken_lines(block, encoding)
                bad[encoding] += len(broken)
                header.setdefault(encoding, 0 in broken)
    best = min(declared, key=lambda encoding: (bad[encoding], declared.index(encoding)))
    if header.get(best) or bad[best] > max(1, lines // 100):
        raise undecodable(opener, name, declared, bad[best])
    return Encoding(best, clean=False)


def _broken_lines(block: bytes, encoding: str) -> list[int]:
    """Indices of the lines that do not decode. Walks the lines, but only of a block that is known to be broken."""
    try:
        block.decode(encoding)
    except UnicodeDecodeError:
        return [index for index, line in enumerate(block.split(b"\n")) if not _decodes(line, encoding)]
    return []


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def text_blocks(opener: Opener, name: str, encoding: Encoding) -> Iterator[TextBlock]:
    """The file's lines in UTF-8; a line that cannot be decoded is blanked in ``data`` and named in ``bad``."""
    with opener() as stream:
        for raw in line_blocks(stream, name):
            sound = encoding.clean and not (encoding.cut and not raw.endswith(b"\n"))
            bad = [] if sound else _broken_lines(raw, encoding.name)
            if bad:
                lines = raw.split(b"\n")
                for index in bad:
                    lines[index] = b""
                whole = b"\n".join(lines)
            else:
                whole = raw
            yield TextBlock(whole if encoding.name == "utf-8" else whole.decode(encoding.name).encode(), raw, bad)
