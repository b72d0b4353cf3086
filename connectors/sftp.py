"""Files in a folder of an SFTP server.

Cursor: ``{file name: [size, modification time]}`` of the files already merged. What is new or changed is landed once it is
whole: a file that still grows, that changed on the way, or whose gzip stream has not ended is left for the next run.
"""

from __future__ import annotations

import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from connectors import reading
from connectors.connections import Connection
from connectors.errors import FatalError, RetriableError, YiciError
from connectors.fetched import Cursor, Diagnosis, Fetched, Progress, columns_expected, failed
from connectors.files import matches
from connectors.landing import Landing
from connectors.sftpsession import Altered, Cut, Session, Stamp
from connectors.source import SftpOptions, Source

HEAD = 4 << 20  # bytes of the newest file that a check looks at
GZIP = 31  # zlib's word for "a gzip header and trailer"
UNPACKED = 1 << 20  # bytes unpacked at once
GIVEN_UP = 3600  # seconds after which a gzip file without its end is no longer on its way


def fetch(
    source: Source, connection: Connection, cursor: Cursor | None, landing: Landing, progress: Progress | None = None
) -> Fetched:
    """Lands every matching file that is not in ``cursor``. An empty folder is a success with no file.

    RetriableError when the server cannot be reached, falls silent or cuts every try; FatalError when it is not the host it
    should be, refuses the login or the folder, or holds an empty file or one whose gzip stream will never end.
    """
    options = _options(source)
    known = cursor or {}
    landed = []
    with Session(source, connection) as session:
        present = _present(session, options)
        fresh = {name: stamp for name, stamp in present.items() if known.get(name) != stamp}
        kept = {name: stamp for name, stamp in present.items() if name not in fresh}
        settled = _settled(session, fresh, options)
        for number, (name, stamp) in enumerate(sorted(settled.items()), start=1):
            if not stamp[0]:
                raise FatalError("file-empty", file=name)
            try:
                landed.append(landing.put(_whole(session.content(name, stamp), name, stamp), name))
                kept[name] = stamp
            except Altered:  # written to while it was read, or not yet complete: the next run takes it
                pass
            if progress:
                progress(number, len(settled))
    request = {"pattern": options.pattern, "found": len(present), "new": len(fresh), "taken": len(landed)}
    return Fetched(landed, kept, session.requests, request)


def check(source: Source, connection: Connection) -> list[Diagnosis]:
    """Name, port, host key, login, folder, files, the newest one's columns; stops at the first that fails."""
    options = _options(source)
    steps: list[Diagnosis] = []
    step = "name"
    try:
        with Session(source, connection) as session:
            steps.append(Diagnosis(step, True, session.resolved()))
            step = "port"
            session.guarded(session.dial)
            steps.append(Diagnosis(step, True, f"{session.host}:{session.port}"))
            step = "host key"
            steps.append(Diagnosis(step, True, session.guarded(session.greet)))
            step = "login"
            session.guarded(session.log_in)
            steps.append(Diagnosis(step, True, connection.username or "-"))
            step = "folder"
            present = _present(session, options)
            steps.append(Diagnosis(step, True, connection.url))
            steps.append(Diagnosis("files", True, f"{len(present)} × {options.pattern}"))
            if not present:
                return steps
            step = "content"
            newest = max(present, key=lambda name: (present[name][1] or 0, name))
            return [*steps, columns_expected(source, _columns(source, session, newest, present[newest]))]
    except Cut as cut:
        return [*steps, failed(step, cut.error)]
    except YiciError as error:
        return [*steps, failed(step, error)]


def _options(source: Source) -> SftpOptions:
    assert isinstance(source.options, SftpOptions)
    return source.options


def _present(session: Session, options: SftpOptions) -> dict[str, Stamp]:
    return {name: stamp for name, stamp in session.listing().items() if matches(name, options.pattern)}


def _settled(session: Session, fresh: dict[str, Stamp], options: SftpOptions) -> dict[str, Stamp]:
    """Those that did not change for ``settle_seconds``; the server's clock may differ, so ages say nothing."""
    if not fresh or not options.settle_seconds:
        return fresh
    time.sleep(options.settle_seconds)
    now = session.listing()
    return {name: stamp for name, stamp in fresh.items() if now.get(name) == stamp}


def _whole(pieces: Iterable[bytes], name: str, stamp: Stamp) -> Iterator[bytes]:
    """Passes bytes on; raises :class:`Altered` at the end of a gzip file that has not come to its own end.

    FatalError ``sftp-gzip-cut`` when it was left like that for an hour: nobody is writing it any more.
    """
    packed: _Gzip | None = None
    for number, piece in enumerate(pieces):
        if number == 0 and piece.startswith(b"\x1f\x8b"):
            packed = _Gzip()
        if packed:
            packed.feed(piece)
        yield piece
    if packed and not packed.ended:
        if time.time() - (stamp[1] or 0) > GIVEN_UP:
            raise FatalError("sftp-gzip-cut", file=name)
        raise Altered


class _Gzip:
    """Follows a gzip file, of one stream or several, to see whether its last one ends; keeps nothing of it."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(GZIP)
        self.ended = False
        self._broken = False

    def feed(self, data: bytes) -> None:
        while not self._broken:
            if self.ended:
                data = data.lstrip(b"\x00")  # padding
                if not data:
                    return
                self._stream, self.ended = zlib.decompressobj(GZIP), False
            try:
                text = self._stream.decompress(data, UNPACKED)
            except zlib.error:  # broken, not cut: whoever reads it says so
                self.ended = self._broken = True
                return
            self.ended = self._stream.eof
            data = self._stream.unused_data if self.ended else self._stream.unconsumed_tail
            if not data and len(text) < UNPACKED:
                return


def _columns(source: Source, session: Session, name: str, stamp: Stamp) -> list[str]:
    """The columns at the beginning of a file; a whole file for the formats that cannot be read in part."""
    options = _options(source)
    parts = session.content(name, stamp)
    if options.format in ("csv", "jsonl"):
        parts = iter([_head(parts)])
    with tempfile.TemporaryDirectory(prefix="yici-check-") as folder:
        copy = Path(folder, "file")
        try:
            with copy.open("wb") as file:
                file.writelines(parts)
        except Altered:
            raise RetriableError("file-gone", file=name) from None
        block = next(iter(reading.file_blocks(lambda: copy.open("rb"), name, options)))
    return [column for column in block.table.column_names if column != reading.ROW]


def _head(parts: Iterator[bytes]) -> bytes:
    """The whole lines of a file's beginning, unpacked."""
    data, whole = bytearray(), True
    for part in parts:
        data += part
        if len(data) >= HEAD:
            whole = False
            break
    if data.startswith(b"\x1f\x8b"):
        stream = zlib.decompressobj(GZIP)
        try:
            data = bytearray(stream.decompress(bytes(data), HEAD))
        except zlib.error:
            return bytes(data)  # whoever reads it says so
        whole = whole and stream.eof
    return bytes(data if whole else data[: data.rfind(b"\n") + 1])
