"""What goes on beside the exchange as a server: peers hear of a changed card and
of what was decided about agreements and corrections, ids of old messages are forgotten."""

from __future__ import annotations

import datetime as dt
import logging
import threading

import sqlalchemy as sa

from connectors.errors import YiciError
from hub import database
from hub.exchange import agreement_acts, cards, corrections, peer_messages, peers

SECONDS = 30.0
KEPT = dt.timedelta(days=1)  # far longer than a message may be on its way

log = logging.getLogger("yici.exchange")


class Upkeep:
    """A thread of its own; what fails is tried again the next time."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="yici-exchange-upkeep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            try:
                forget()
                introduce()
                agreement_acts.tell_all()
                corrections.tell_all()
            except (YiciError, sa.exc.SQLAlchemyError) as error:
                log.warning("%s", getattr(error, "code", type(error).__name__))


def introduce() -> dict[str, str]:
    """Tell each peer this hub's card that has not taken it as it is now; what came of it by peer: ``ok`` or a code."""
    changed = cards.changed_at()
    with database.engine().connect() as connection:
        behind = [peer.name for peer in peers.every(connection) if peer.told_at is None or peer.told_at < changed]
    told = {}
    for name in behind:
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


_OLD = sa.text("DELETE FROM exchange_message WHERE received_at < :before")
