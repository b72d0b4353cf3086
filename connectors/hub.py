"""The index feed of a partner hub (docs/protocol/25-index.md), read page by page up to where it stood at the start.

Cursor: ``{"epoch", "position", "materials", "regions", "agreement"}``, to which the hub adds the epoch's key. Each page is a
signed reply that the hub's channel verified; what it says is judged here before it lands: that it goes on exactly where we asked,
in one epoch, of one region. In a new epoch all ids are new ones, so the feed is read again from 0.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from connectors import indexpages
from connectors.channel import Agreed, Channel
from connectors.errors import FatalError, RetriableError, YiciError
from connectors.fetched import Cursor, Diagnosis, Fetched, Progress, failed
from connectors.indexframe import KIND, Frame
from connectors.indexpages import Page
from connectors.landing import LandedFile, Landing
from connectors.source import HubOptions, Source

OVER = "index-epoch-over"  # the partner's word that it is in another epoch by now


def fetch(
    source: Source, channel: Channel, cursor: Cursor | None, landing: Landing, progress: Progress | None = None
) -> Fetched:
    """Lands what was announced since ``cursor``, each page as it came.

    FatalError when a page is not what the protocol promises: nothing is merged then, and the refusal is recorded.
    RetriableError when the partner does not answer, or changed its epoch while we were reading.
    """
    _require_region(source, channel)
    agreement = channel.agreed(cursor)
    read = _Read(source, channel, agreement, landing, progress)
    start = read.first(cursor)
    until = max(start.head, start.to)
    read.rest(start, until)
    request = {"kind": KIND, "agreement": agreement.reference, "epoch": start.epoch, "after": start.after, "until": until,
               "limit": read.options.page_size}  # fmt: skip
    # What may be announced is kept with the position: of that, silence means that there is none.
    scope = {"materials": list(start.materials), "regions": list(start.regions)}
    kept = {"epoch": start.epoch, "position": until, **scope, "agreement": agreement.reference.partition("/")[0]}
    return Fetched([file for _, file in sorted(read.landed.items())], kept, read.asked, request)


def check(source: Source, channel: Channel) -> list[Diagnosis]:
    """From here to the partner and back, the agreement, a page of no entries; stops at the first step that fails."""
    steps: list[Diagnosis] = []
    for found in channel.steps():
        steps.append(found)
        if not found.ok:
            return steps
    step = "agreement"
    try:
        agreement = channel.agreed(None)
        steps.append(Diagnosis(step, True, agreement.reference))
        step = "index"
        _require_region(source, channel)
        told = _Read(source, channel, agreement).page({"after": 0, "until": 0})
    except YiciError as error:
        return [*steps, failed(step, error)]
    announced = f"{', '.join(told.regions)}: {', '.join(told.materials) or '-'}"
    return [*steps, Diagnosis(step, True, f"{announced}; epoch {told.epoch}, {told.head}")]


def _require_region(source: Source, channel: Channel) -> None:
    if channel.region != source.region:
        raise FatalError("index-page-foreign", file=source.name, what="region", expected=source.region)


class _Read:
    """One reading. Without ``landing`` nothing lands. ``landed``: by the position after which a page begins."""

    def __init__(
        self,
        source: Source,
        channel: Channel,
        agreed: Agreed,
        landing: Landing | None = None,
        progress: Progress | None = None,
    ) -> None:
        assert isinstance(source.options, HubOptions)
        self.source, self.channel, self.agreed, self.landing, self.progress = source, channel, agreed, landing, progress
        self.options = source.options
        self.landed: dict[int, LandedFile] = {}
        self.asked = self.done = 0
        self.total: int | None = None
        self._alone, self._stopped = threading.Lock(), threading.Event()
        self._scope: tuple[tuple[str, ...], tuple[str, ...]] | None = None

    def first(self, cursor: Cursor | None) -> Frame:
        """The page to begin with: after the cursor, or after 0 where the partner is in another epoch."""
        if cursor is None:
            return self.page({"after": 0})
        position, epoch = int(cursor["position"]), str(cursor["epoch"])
        try:
            return self.page({"after": position, "epoch": epoch}, head=position)
        except YiciError as error:
            if error.values.get("code") != OVER:
                raise
        return self.page({"after": 0}, beyond=epoch)

    def rest(self, start: Frame, until: int) -> None:
        """All that follows ``start`` up to ``until``, in parts that are read side by side."""
        self.total = until - start.after
        parts = list(_parts(start.to, until, self.options.streams, self.options.page_size))
        with ThreadPoolExecutor(self.options.streams, "index") as pool:
            reading = [pool.submit(self._part, start, after, to, until) for after, to in parts]
            try:
                for part in reading:
                    part.result()
            finally:  # interrupted, else they are through
                self._stopped.set()

    def _part(self, start: Frame, after: int, to: int, until: int) -> None:
        head = start.head
        try:
            while after < to and not self._stopped.is_set():
                page = self.page({"after": after, "to": to, "until": until, "epoch": start.epoch}, head=head)
                after, head = page.to, page.head
        except BaseException as error:
            self._stopped.set()
            if isinstance(error, YiciError) and error.values.get("code") == OVER:
                raise RetriableError("index-epoch-changed", source=self.source.name) from error
            raise

    def page(self, asked: dict[str, int | str], head: int = 0, beyond: str = "") -> Frame:
        """The page that answers ``asked``, landed. The feed must not end before ``head``, its epoch be later than ``beyond``."""
        message = self.channel.ask(KIND, {"limit": self.options.page_size, **asked}, self.options.request_seconds)
        try:
            page = indexpages.opened(message, self.source.region, self.source.name)
            self._judge(page, asked, head, beyond)
            self._require_one_scope(page)
        except YiciError as error:
            self.channel.refused(message, error)
            raise
        frame = page.frame
        with self._alone:
            if self.landing is not None:
                name = f"{self.source.name}-{frame.epoch}-{frame.after:012d}.msg"
                self.landed[frame.after] = self.landing.put(message.wire, name)
            self.asked += 1
            self.done += frame.to - frame.after
            if self.progress:
                self.progress(self.done, self.total)
        return frame

    def _judge(self, page: Page, asked: dict[str, int | str], head: int, beyond: str) -> None:
        frame, name = page.frame, self.source.name
        if frame.epoch <= beyond:
            raise FatalError("index-epoch-back", source=name, found=frame.epoch, known=beyond)
        if frame.epoch != asked.get("epoch", frame.epoch):
            raise FatalError("index-page-foreign", file=name, what="epoch", expected=asked["epoch"])
        if frame.head < head:
            raise FatalError("index-head-back", source=name, found=frame.head, known=head)
        beyond_asked = frame.to > int(asked.get("to", frame.to))
        # A page that leads nowhere would be asked for for ever.
        nowhere = frame.to == frame.after < min(frame.head, int(asked.get("until", frame.head)))
        if frame.after != asked["after"] or beyond_asked or nowhere:
            raise FatalError("index-page-order", source=name, after=asked["after"])
        rows = indexpages.block(page, name)
        if not indexpages.in_order(page, rows):
            raise FatalError("index-page-order", source=name, after=asked["after"])
        indexpages.require_agreed(page, rows, self.agreed, self.source.region, name)

    def _require_one_scope(self, page: Page) -> None:
        """An epoch has one scope: what the first page says it tells of is what is kept of the read."""
        told = page.frame.materials, page.frame.regions
        with self._alone:
            self._scope = self._scope or told
        if told != self._scope:
            raise FatalError(
                "index-page-foreign",
                file=self.source.name,
                what="scope",
                expected="; ".join(map(", ".join, self._scope)),
            )


def _parts(after: int, until: int, most: int, least: int) -> Iterator[tuple[int, int]]:
    """(after, until] in up to ``most`` parts of about one size, none of fewer than ``least`` positions but the only one."""
    count = max(1, min(most, (until - after) // least))
    bounds = [after + (until - after) * place // count for place in range(count + 1)]
    return pairwise(bounds)
