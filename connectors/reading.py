"""Landed bytes → blocks of raw string columns with row numbers, whatever the connector that landed them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from connectors import csvfile, jsonpages
from connectors.block import ROW, Block, regrouped
from connectors.errors import FatalError
from connectors.landing import LandedFile, Landing
from connectors.source import FileOptions, HubOptions, RestOptions, Source
from connectors.textfile import Opener

if TYPE_CHECKING:
    from connectors.channel import Partner

__all__ = ["ROW", "Block", "blocks", "file_blocks"]

LINES = (".jsonl", ".jsonl.gz")  # JSON, a record a line


def blocks(
    source: Source, landed: LandedFile, landing: Landing, block_rows: int = 65536, *, partner: Partner | None = None
) -> Iterator[Block]:
    """The rows of one landed file, in order; columns as found, missing or unknown ones are not judged here.

    A database extract is CSV in UTF-8 where an unquoted empty value is null; its first record is row 1. ``partner``: who signed
    the pages of a partner hub's index. Of a REST source a page, or records one a line, as somebody may hand them in under a
    name that says so. FatalError when the file cannot be read as what the source says it is.
    """
    options = source.options
    if isinstance(options, RestOptions) and landed.name.lower().endswith(LINES):
        lines = FileOptions(pattern="*", format="jsonl", columns=options.columns)
        yield from file_blocks(lambda: landing.open(landed), landed.name, lines, block_rows)
        return
    if isinstance(options, RestOptions):
        with landing.open(landed) as stream:
            page = stream.read(options.page_bytes + 1)
        if len(page) > options.page_bytes:
            raise FatalError("page-not-records", file=landed.name, records=options.records)
        yield from regrouped([jsonpages.block(page, landed.name, options.records, options.columns)], block_rows)
        return
    if isinstance(options, HubOptions):
        from connectors import indexpages

        if partner is None:
            raise FatalError("index-partner-unreadable", place=landed.name)
        yield from regrouped(indexpages.blocks(source, landed, landing, partner), block_rows)
        return
    if isinstance(options, FileOptions):
        yield from file_blocks(lambda: landing.open(landed), landed.name, options, block_rows)
        return
    form = csvfile.Form(multiline=True, nulls=True, header_row=0)
    yield from csvfile.blocks(lambda: landing.open(landed), landed.name, form, block_rows)


def file_blocks(opener: Opener, name: str, options: FileOptions, block_rows: int = 65536) -> Iterator[Block]:
    """The rows of one file in the format that ``options`` names, landed or not."""
    if options.format != "csv":
        yield from _format(options.format).blocks(opener, name, options, block_rows)
        return
    form = csvfile.Form(options.encodings, options.delimiter, options.multiline)
    yield from csvfile.blocks(opener, name, form, block_rows)


def _format(name: str) -> ModuleType:
    """The reader of a file format; its library is imported only when it is used."""
    return import_module(
        {"jsonl": "connectors.jsonlines", "xlsx": "connectors.workbook"}.get(name, f"connectors.{name}file")
    )
