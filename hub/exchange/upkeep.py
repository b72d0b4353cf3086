"""What goes on beside the exchange as a server: peers hear of a changed card and
of what was decided about agreements and corrections, ids of old messages are forgotten."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import threading
from collections.abc import Iterator

import sqlalchemy as sa

from connectors.errors import YiciError
from hub import database
from hub.exchange import agreement_acts, cards, corrections, peer_messages, peers

SECONDS = 30.0
KEPT = dt.timedelta(days=1)  # far longer than a message may be on its way

log = logging.getLogger("yici.exchange")


class Upkeep:
    """A thread of its own, and one for each peer: nobody waits for what another is slow to hear. What fails is tried again the
    next time."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._ended = threading.Event()
        self._telling: dict[str, threading.Thread] = {}
        self._thread = threading.Thread(target=self._run, name="yici-exchange-upkeep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            with _told():
                forget()
            with _told():
                for name in names():
                    self._tell(name)
        for thread in self._telling.values():
            thread.join()

    def _tell(self, peer: str) -> None:
        """Unless that is still going on."""
        if (known := self._telling.get(peer)) is None or not known.is_alive():
            thread = threading.Thread(target=tell, args=(peer,), name=f"yici-tell-{peer}", daemon=True)
            self._telling[peer] = thread
            thread.start()


def tell(peer: str) -> None:
    """Tell ``peer`` whatever it has not taken yet; errors are logged."""
    for telling in (introduce, agreement_acts.tell_all, corrections.tell_all):
        with _told():
            telling(peer)


def introduce(peer: str | None = None) -> dict[str, str]:
    """Tell each peer, or that one, this hub's card that has not taken it as it is now; what came of it by peer: ``ok`` or a code."""
    changed = cards.changed_at()
    with database.engine().connect() as connection:
        behind = [each.name for each in peers.every(connection) if each.told_at is None or each.told_at < changed]
    told = {}
    for name in behind:
        if peer not in (None, name):
            continue
        try:
            peer_messages.introduce(name)
            told[name] = "ok"
        except YiciError as error:
            told[name] = str(error.values.get("code", error.code))
    return told


def forget(now: dt.datetime | None = None) -> int:
    """Drop what is kept of messages that are too old to be heard again."""
    with database.engine().begin() as connection:
        before = (now or dt.datetime.now(dt.UTC)) - KEPT
        return connection.execute(_OLD, {"before": before}).rowcount


def names() -> list[str]:
    """Of all peers."""
    with database.engine().connect() as connection:
        return [peer.name for peer in peers.every(connection)]


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (YiciError, sa.exc.SQLAlchemyError) as error:
        log.warning("%s", getattr(error, "code", type(error).__name__))


_OLD = sa.text("DELETE FROM exchange_message WHERE received_at < :before")
