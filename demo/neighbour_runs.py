"""What Zhejiang's hub of the demo does by itself: let Shanghai in, then run its sources one after the other, without
Airflow, all in one process (the gate is slow to load, once is enough).

``python -m demo.neighbour_runs PEER SOURCE…`` in the environment of that hub. What the peer is told is written to
``keys/peer-<PEER>.json`` (0600), what became of each run to ``runs.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from connectors import source as sources
from connectors.errors import YiciError
from connectors.signature import base64url
from hub import database, home, peers, pipeline, signing
from hub.home import replace_json
from mappings import model


def main(peer: str, names: Sequence[str]) -> int:
    """0 when every run succeeded."""
    here = home.current()
    agree(peer, names, told_to(here.path, peer))
    runs = [_run(name) for name in names]
    replace_json(here.path / "runs.json", runs)
    return 0 if all(run["state"] == "success" for run in runs) else 1


def told_to(folder: Path, peer: str) -> Path:
    """Where the home in ``folder`` keeps what ``peer`` was told."""
    return folder / "keys" / f"peer-{peer}.json"


def agree(peer: str, names: Sequence[str], file: Path) -> None:
    """Grant the peer what the sources deliver, as far as it may be announced; what it was told before stays good."""
    entities = [model.load(sources.load(name).entity) for name in names]
    materials = sorted({entity.code for entity in entities if entity.kind == "certificate" and entity.indexed})
    if not materials or _still_good(peer, materials, file):
        return
    made = peers.grant(peer, peer, materials, replace=True)
    extra = {"public_key": signing.public_key(), "index_key": base64url(made.key), "hub": made.publisher.hub}
    replace_json(file, {"username": made.client, "password": made.secret, "extra": extra})


def _still_good(peer: str, materials: list[str], file: Path) -> bool:
    known = {entry.client: entry for entry in peers.every()}.get(peer)
    if known is None or known.valid_to is not None or sorted(known.materials) != materials or not file.is_file():
        return False
    told = json.loads(file.read_text(encoding="utf-8"))
    same_key = told["extra"]["public_key"] == signing.public_key()
    return same_key and peers.authenticate(database.engine(), peer, told["password"])


def _run(name: str) -> dict[str, Any]:
    try:
        print(name, flush=True)
        return {**pipeline.run(name), "state": "success"}
    except YiciError as error:
        print(error, flush=True)
        return {"source": name, "state": "failed", "code": error.code, "message": error.message()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
