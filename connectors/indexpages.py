"""Pages of a partner hub's index feed (docs/protocol/25-index.md): the reply as it came → blocks.

What lands is the message and nothing else, so whoever reads it again can verify it again. A page whose signature or frame is
wrong is refused whole, and one with a status or a subject that the protocol does not have: an announcement not understood must
not leave the one before in force. A line that has other values than the header names is one malformed row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from connectors import envelope
from connectors.block import ROW, Block, malformed_table, table_schema
from connectors.channel import Agreed, Partner
from connectors.envelope import OK, PROTOCOL, Message
from connectors.errors import FatalError
from connectors.indexframe import ENTRY, KIND, MEDIA_TYPE, RESTATED, STATUSES, SUBJECTS, Frame
from connectors.landing import LandedFile, Landing
from connectors.source import Source

COLUMNS = (*ENTRY[:-1], "epoch", "hub", "subjects")
MOST_COLUMNS = 100  # of later versions


@dataclass(frozen=True)
class Page:
    """``entries``: the lines below the frame, still as CSV; ``agreement``: under which it was given."""

    hub: str
    agreement: str | None
    frame: Frame
    entries: bytes


def verified(wire: bytes, partner: Partner, name: str) -> Message:
    """The message in ``wire``: a page that ``partner`` gave this hub. ``name``: of the file, for errors.

    FatalError ``message-malformed``, ``message-signature``, ``message-altered`` or ``index-page-foreign``.
    """
    message = envelope.read(wire)
    told = message.envelope
    for what, found, expected in (
        ("from", told.sender, partner.hub),
        ("to", told.receiver, partner.own),
        ("protocol", told.protocol, PROTOCOL),
        ("status", told.status, OK),
    ):
        if found != expected:
            raise FatalError("index-page-foreign", file=name, what=what, expected=expected)
    envelope.verify(message, partner.keys_at(told.at), partner.hub)
    if not message.intact:
        raise FatalError("message-altered", peer=partner.hub)
    return message


def opened(message: Message, region: str, name: str) -> Page:
    """The page in a message that was verified. ``region``: of the partner, beyond which it may say nothing.

    FatalError ``index-page-form`` or ``index-page-foreign``.
    """
    told = message.envelope
    if told.kind not in (KIND, RESTATED) or told.type != MEDIA_TYPE:
        raise FatalError("index-page-form", file=name)
    line, _, entries = message.body.partition(b"\n")
    try:
        frame = _frame.decode(line)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        raise FatalError("index-page-form", file=name) from None
    if frame.restated != (told.kind == RESTATED):
        raise FatalError("index-page-form", file=name)
    if not all(each.startswith(prefix(region)) for each in frame.regions):
        raise FatalError("index-page-foreign", file=name, what="regions", expected=region)
    return Page(told.sender, told.agreement, frame, entries)


def prefix(region: str) -> str:
    """What all division codes within ``region`` (six digits) begin with: 330000 is 33, 330100 is 3301 (GB/T 2260)."""
    return re.sub(r"(00)+$", "", region)


def require_agreed(page: Page, rows: Block, agreed: Agreed, region: str, name: str) -> None:
    """That neither the frame nor an entry goes beyond what is ``agreed``; an entry that names no region is of the whole of ``region``,
    the partner's. What is withdrawn is of no region, and outside the order of the feed of whichever material it was asked for.

    FatalError ``index-page-beyond``: nothing of the page may be used, since what it says it tells of would count where it is silent.
    """
    frame = page.frame
    regions = tuple(prefix(each) if len(each) == 6 else each for each in frame.regions)
    beyond = (
        sorted(set(frame.materials) - set(agreed.materials)),
        [each for each, begins in zip(frame.regions, regions, strict=True) if not begins.startswith(agreed.regions)],
    )
    withdrawn = pc.equal(rows.table["status"], "withdrawn")
    materials, places = rows.table["material"], pc.fill_null(rows.table["region"], prefix(region))
    of = pc.is_in(materials, pa.array(frame.materials, pa.string()))
    aside = pc.or_(withdrawn, pc.is_null(materials)) if frame.restated else pc.is_null(materials)
    beyond[0].extend(_not(materials, pc.or_(of, aside)))
    beyond[1].extend(_not(places, pc.or_(_within(places, regions), withdrawn)))
    for what, found, known in zip(("materials", "regions"), beyond, (agreed.materials, agreed.regions), strict=True):
        if found:
            # What looks like no code is not repeated: it may be anything, also somebody's number.
            shown = ", ".join(each if _CODE.fullmatch(each) else "…" for each in dict.fromkeys(found[:5]))
            raise FatalError(
                "index-page-beyond", source=name, peer=page.hub, agreement=agreed.reference, what=what, found=shown,
                known=", ".join(known[:20]) or "-",
            )  # fmt: skip


def _within(places: pa.ChunkedArray, regions: tuple[str, ...]) -> pa.ChunkedArray:
    """Which of ``places`` begin with one of ``regions``: a look a length, however many there are."""
    within = pa.chunked_array([pa.repeat(False, len(places))])
    for length in sorted({len(each) for each in regions}):
        some = pa.array([each for each in regions if len(each) == length], pa.string())
        within = pc.or_(within, pc.is_in(pc.utf8_slice_codeunits(places, 0, length), some))
    return within


def _not(values: pa.ChunkedArray, good: pa.ChunkedArray) -> list[str]:
    """Some of the values that are not good."""
    return [] if pc.all(good, min_count=0).as_py() else values.filter(pc.invert(good))[:5].to_pylist()


def block(page: Page, name: str) -> Block:
    """The entries of a page, one row each, numbered from 1; an empty value is null. FatalError ``index-page-form``."""
    header, ended, lines = page.entries.partition(b"\n")
    names = header.decode("ascii", "replace").split(",")
    known = len(set(names)) == len(names) <= MOST_COLUMNS and set(ENTRY) <= set(names)
    if not (ended and known and _plain(lines)):
        raise FatalError("index-page-form", file=name)
    table, malformed = _rows(lines, names, name)
    values = {column: table[column].combine_chunks() for column in ENTRY}
    _require_understood(values, name)
    values |= {"epoch": pa.repeat(page.frame.epoch, len(table)), "hub": pa.repeat(page.hub, len(table))}
    columns = [*(values[column] for column in COLUMNS), table[ROW]]
    return Block(pa.table(columns, schema=table_schema(COLUMNS)), malformed)


def _plain(lines: bytes) -> bool:
    """Whether each line is ended, and nothing in them would have to be quoted or is no text."""
    return not lines or (lines.endswith(b"\n") and len(lines.translate(None, _STRANGE)) == len(lines))


def _rows(lines: bytes, names: list[str], name: str) -> tuple[pa.Table, pa.Table]:
    """The lines that have as many values as ``names``, and the others."""
    refused: list[pacsv.InvalidRow] = []

    def refuse(row: pacsv.InvalidRow) -> str:
        refused.append(row)
        return "skip"

    schema = pa.schema([(column, pa.string()) for column in ENTRY])
    if not lines:
        table = schema.empty_table()
    else:
        try:
            table = pacsv.read_csv(
                pa.BufferReader(lines),
                # one thread and one block: only then are the numbers of refused rows known
                read_options=pacsv.ReadOptions(use_threads=False, column_names=names, block_size=len(lines) + 1),
                parse_options=pacsv.ParseOptions(
                    quote_char=False, ignore_empty_lines=False, invalid_row_handler=refuse
                ),
                convert_options=pacsv.ConvertOptions(
                    column_types=schema, include_columns=list(ENTRY), strings_can_be_null=True, null_values=[""]
                ),
            )
        except pa.ArrowInvalid:  # not UTF-8
            raise FatalError("index-page-form", file=name) from None
    lost = malformed_table(
        [row.number for row in refused], [(row.text or "").encode() for row in refused], ["column-count"] * len(refused)
    )
    numbers = np.delete(np.arange(1, table.num_rows + len(refused) + 1), [row.number - 1 for row in refused])
    return table.combine_chunks().append_column(ROW, pa.array(numbers)), lost


def _require_understood(values: dict[str, pa.Array], name: str) -> None:
    # Where a subject could not be told from the next, another one would be made of it.
    known = pc.is_in(values["status"], pa.array(STATUSES))
    told = pc.fill_null(pc.match_substring_regex(values["subjects"], SUBJECTS), True)
    if not (pc.all(known, min_count=0).as_py() and pc.all(told, min_count=0).as_py()):
        raise FatalError("index-page-form", file=name)


def blocks(source: Source, landed: LandedFile, landing: Landing, partner: Partner) -> Iterator[Block]:
    """The announcements of one landed page; columns :data:`COLUMNS`, ``subjects`` as ``role:id role:id``.

    Verified again with the keys that ``partner`` had when it was signed: FatalError as :func:`verified` and :func:`opened`.
    """
    with landing.open(landed) as stream:
        wire = stream.read(envelope.LIMIT + 1)
        stream.read(1)  # the end is where the landing zone finds an altered file
    yield block(opened(verified(wire, partner, landed.name), source.region, landed.name), landed.name)


def positions(rows: Block) -> pa.Array:
    """The readable positions of a block, int64."""
    texts = rows.table["position"].combine_chunks()
    readable = pc.fill_null(pc.match_substring_regex(texts, r"^\d{1,18}$"), False)
    return texts.filter(readable).cast(pa.int64())


def in_order(page: Page, rows: Block) -> bool:
    """Whether the entries lie in (``after``, ``to``], each later than the one before, and the page within the feed."""
    frame, found = page.frame, positions(rows).to_numpy()
    within = not len(found) or (found[0] > frame.after and found[-1] <= frame.to)
    return bool(frame.after <= frame.to <= frame.head and within and (np.diff(found) > 0).all())


_frame = msgspec.json.Decoder(Frame)
_CODE = re.compile(r"[a-z]+(-[a-z]+)*|[0-9]{2,6}")
_STRANGE = bytes({*range(0x20), ord('"'), 0x7F} - {ord("\n")})
