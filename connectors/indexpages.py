"""Landed pages of a partner hub's index feed → blocks."""

from __future__ import annotations

from collections.abc import Iterator

from connectors.block import Block
from connectors.landing import LandedFile, Landing
from connectors.source import Source


def blocks(source: Source, landed: LandedFile, landing: Landing) -> Iterator[Block]:
    """The announcements of one page, one row each."""
    raise NotImplementedError
