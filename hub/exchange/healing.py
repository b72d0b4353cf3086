"""Healing after a reconciliation 对账: what the provider announces under the handles that differ is fetched, landed, and taken
through the pipeline as a batch of the source that reads its feed.

A restated record is recorded later than all that came before, so it counts against whatever the ledger believes, and a rebuild
from the landing zone ends the same. Index entries that did not follow from what was announced are made anew from it.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from connectors import indexpages
from connectors import source as sources
from connectors.channel import Agreed
from connectors.envelope import Message
from connectors.errors import FatalError
from connectors.source import Source
from hub import home, index_entries, pipeline
from hub.exchange import caller
from hub.exchange.announced import Received
from hub.exchange.reconciliation_messages import RESTATE, RESTATED

_MATERIAL = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
Ask = Callable[[str, Mapping[str, Any]], Message]  # kind, body -> reply


@dataclass
class Healed:
    """What became of the records that were fetched, and how many certificates had their entries made anew."""

    fetched: int = 0
    batch: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    mended: int = 0


def heal(ask: Ask, agreed: Agreed, received: Received, records: Mapping[str, str | None], *, entries: bool) -> Healed:
    """Fetch ``records`` (handle -> material as known here), within what is ``agreed``, and merge them; ``entries``: mend those of
    others too.

    FatalError ``index-…`` or ``reconcile-answer`` for a page that is not what was asked for: of that nothing is kept. Errors of
    :func:`ask` and :func:`hub.pipeline.run`.
    """
    healed = Healed()
    if records:
        described = sources.load(received.source)
        folder = home.current().work / f"restated-{uuid.uuid4().hex}"
        folder.mkdir(parents=True, mode=0o700)
        try:
            healed.fetched = _fetch(ask, agreed, described, received, list(records.items()), folder)
            summary = pipeline.run(received.source, input=folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        healed.batch = summary["batch"]
        healed.counts = {name: summary[name] for name in ("accepted", "quarantined", "rejected", "unchanged")}
    if entries:
        healed.mended = index_entries.mend(received.source)
    return healed


def _fetch(
    ask: Ask,
    agreed: Agreed,
    described: Source,
    received: Received,
    records: list[tuple[str, str | None]],
    folder: Path,
) -> int:
    """Every page is verified before any is merged."""
    for start in range(0, len(records), RESTATE):
        some = [
            (handle, material if _MATERIAL.fullmatch(material or "") else None)
            for handle, material in records[start : start + RESTATE]
        ]
        reply = ask(RESTATED, {"epoch": received.epoch, "records": some})
        with caller.judged(reply):
            _require(agreed, described, received, reply, (handle for handle, _ in some))
        path = folder / f"{received.source}-{received.epoch}-restated-{start:09d}.msg"
        path.write_bytes(reply.wire)
    return len(records)


def _require(agreed: Agreed, described: Source, received: Received, reply: Message, asked: Iterable[str]) -> None:
    """That ``reply`` is a page of exactly the records ``asked``, and goes beyond nothing that is agreed."""
    page = indexpages.opened(reply, described.region, described.name)
    rows = indexpages.block(page, described.name)
    whole = not rows.malformed.num_rows and Counter(rows.table["handle"].to_pylist()) == Counter(asked)
    if page.frame.epoch != received.epoch or not whole:
        raise FatalError("reconcile-answer", peer=received.peer)
    indexpages.require_agreed(page, rows, agreed, described.region, described.name)
