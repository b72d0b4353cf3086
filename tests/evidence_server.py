"""The listener of :mod:`tests.exchange_server` at a hub that may lie: ``python -m tests.evidence_server PORT``.

When ``lie.json`` lies in the home, what evidence says is changed by it before it is signed: members are merged, ``null`` takes
one away. ``twice`` names a member (as JSON) that is said a second time; while ``slow`` lies there, what was given waits before
it is told.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from hub import home
from hub.exchange import evidence, kinds
from hub.exchange.service import Answer, Context
from tests import exchange_server


def lying(context: Context) -> Answer:
    said = evidence.answer(context)
    here = home.current().path
    path = here / "lie.json"
    if (here / "twice").exists():
        name = (here / "twice").read_text().encode()
        return Answer(said.body.replace(name + b":", name + b':"revoked",' + name + b":"))
    if (here / "slow").exists():
        (here / "slowly").touch()
        time.sleep(3)
    if not path.exists():
        return said
    return Answer(json.dumps(merged(json.loads(said.body), json.loads(path.read_text()))).encode())


def merged(said: Any, lie: Any) -> Any:
    if not isinstance(said, dict) or not isinstance(lie, dict):
        return lie
    whole = {**said, **{name: merged(said.get(name), value) for name, value in lie.items()}}
    return {name: value for name, value in whole.items() if name not in lie or lie[name] is not None}


if __name__ == "__main__":
    known = kinds.register()
    known[evidence.REQUEST] = replace(known[evidence.REQUEST], handler=lying)
    exchange_server.main()
