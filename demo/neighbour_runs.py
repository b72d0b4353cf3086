"""What Zhejiang's hub of the demo does by itself: write its card and the terms it would agree to, take Shanghai's card, then run
its sources one after the other, without Airflow, all in one process (the gate is slow to load, once is enough).

``python -m demo.neighbour_runs SOURCE…`` in the environment of that hub. What became of each run is written to ``runs.json``.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from connectors import source as sources
from connectors.errors import YiciError
from hub import clock, database, home, pipeline, signing
from hub.exchange import agreement_terms, cards, peers
from hub.exchange.agreement_terms import Terms
from hub.home import replace_json

BASIS = {
    "zh": "《政务数据共享条例》第二十条；长三角“一网通办”跨省通办协作（演示）",
    "en": "Regulations on Government Data Sharing, Art. 20; cross-province services of the Yangtze River Delta (demo)",
}
SCENARIO = {
    "zh": "受理跨省通办事项时核验申请人在对方持有的证照（演示）",
    "en": "Checking, in cross-province services, certificates that the other province holds (demo)",
}
PURPOSES = ("demo",)


def main(names: Sequence[str]) -> int:
    """0 when every run succeeded."""
    here = home.current()
    peer = peer_of(here.path).read_bytes()
    replace_json(card_of(here.path), cards.own())
    with database.engine().begin() as connection:
        acquaint(connection, peer)
    own, modes = signing.publisher(), ("evidence", "index", "share")
    replace_json(terms_of(here.path), terms(own.hub, cards.read(peer).hub, own.region, delivered(names), modes))
    runs = [_run(name) for name in names]
    replace_json(here.path / "runs.json", runs)
    return 0 if all(run["state"] == "success" for run in runs) else 1


def acquaint(connection: sa.Connection, card: bytes) -> None:
    """The hub of ``card`` is a peer by it, or by a later one that came by itself meanwhile."""
    told = cards.read(card)
    known = peers.find(connection, told.hub)
    if known is None or known.removed or known.card_at < told.at:
        peers.add(connection, card, replace=True)


def card_of(folder: Path) -> Path:
    """Where the home in ``folder`` has its card written."""
    return folder / "card.json"


def peer_of(folder: Path) -> Path:
    """Where it finds that of the other hub."""
    return folder / "peer.json"


def terms_of(folder: Path) -> Path:
    """Where it writes what it would agree to."""
    return folder / "terms.json"


def delivered(names: Sequence[str]) -> dict[str, str]:
    """What the sources ``names`` deliver, as far as it may be shared, with all columns."""
    entities = {sources.load(name).entity for name in names}
    return {code: "*" for code in sorted(entities) if agreement_terms.shareable(code)}


def terms(
    provider: str, receiver: str, region: str, materials: Mapping[str, Any], modes: Sequence[str]
) -> dict[str, Any]:
    """An agreement for a year from today: ``materials`` of ``region``, by material the columns."""
    today = clock.today(dt.datetime.now(dt.UTC))
    return {
        "provider": provider,
        "receiver": receiver,
        "basis": BASIS,
        "scenario": SCENARIO,
        "materials": dict(materials),
        "regions": [region],
        "modes": list(modes),
        "purposes": list(PURPOSES),
        "valid_from": today.isoformat(),
        "valid_to": (today + dt.timedelta(days=365)).isoformat(),
        "consent": "none",
        "epoch_days": 90,
        "correction": True,
    }


def same(file: Path, agreed: Terms) -> bool:
    """Whether ``agreed`` says what the file says, whenever it began, and has not nearly ended."""
    wanted = agreement_terms.Draft.model_validate(json.loads(file.read_text(encoding="utf-8")))
    told = {"id", "version", "valid_from", "valid_to"}
    days = (agreed.valid_to - dt.datetime.now(dt.UTC)).days
    return days > 30 and agreed.model_dump(exclude=told) == wanted.model_dump(exclude=told)


def _run(name: str) -> dict[str, Any]:
    try:
        print(name, flush=True)
        return {**pipeline.run(name), "state": "success"}
    except YiciError as error:
        print(error, flush=True)
        return {"source": name, "state": "failed", "code": error.code, "message": error.message()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
