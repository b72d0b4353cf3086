"""Two hubs under an agreement: Zhejiang announces its index, Shanghai reads it and merges it, then they reconcile."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from hub import pipeline
from hub.exchange import reconciliation
from hub.exchange.agreements import Agreement
from hub.exchange.reconciliation import Result
from tests import stored
from tests.emptying import empty
from tests.peering import STORE, announce
from tests.twohubs import Hub, Pair

SOURCE = "zj-hub-index"
REGISTER = "zj-ga-households"
MATERIAL = "household-register"
INDEX = "index_entry, index_key, index_scope, index_position, reconciliation, correction, landed_file, decision"


class Reading:
    """Two hubs, and what either does."""

    def __init__(self, zj: Any, sh: Any) -> None:
        self.zj, self.sh = zj, sh
        self.named = uuid.UUID(int=0)

    def clear(self) -> None:
        """Empty stores."""
        for hub in (self.zj, self.sh):
            with hub.acting() as engine, engine.begin() as connection:
                empty(connection, f"{STORE}, {INDEX}", restart=True)
                connection.execute(sa.text("UPDATE feed_head SET position = 0, recorded_at = '-infinity'"))
            for folder in ("landing", "work"):
                shutil.rmtree(Path(hub.variables["YICI_HOME"]) / folder, ignore_errors=True)
            (Path(hub.variables["YICI_HOME"]) / "work").mkdir()

    def register(self) -> None:
        """Zhejiang's register of households."""
        with self.zj.acting() as engine:
            stored.source(engine, REGISTER, MATERIAL, region="330000")

    def hold(self, count: int = 1, **more: Any) -> list[str]:
        """So many certificates held and announced in Zhejiang; their keys."""
        holders = more.pop("holders", None) or [("holder", "cn.ric", stored.RESIDENT)]
        with self.zj.acting() as engine:
            keys = []
            for _ in range(count):
                keys.append(stored.holding(engine, REGISTER, MATERIAL, *holders, **{"region": "330106", **more}))
                announce(engine, keys[-1])
            return keys

    def read(self) -> dict[str, Any]:
        with self.sh.acting():
            return pipeline.run(SOURCE)

    def reconcile(self, by: Any = None, *, heal: bool = False) -> Result:
        by = by or self.sh
        with by.acting():
            [result] = reconciliation.reconcile("sh" if by is self.zj else "zj", heal=heal)
        return result

    def sql(self, hub: Any, statement: str, **bind: Any) -> list[Any]:
        with hub.acting() as engine, engine.begin() as connection:
            done = connection.execute(sa.text(statement), bind)
            return list(done) if done.returns_rows else []

    def handles(self) -> list[str]:
        """What Shanghai was told of, in the order of Zhejiang's feed."""
        query = """SELECT document ->> 'certificate_number' FROM observation
          ORDER BY (document -> 'attributes' ->> 'position')::bigint"""
        return [row[0] for row in self.sql(self.sh, query)]


class Exchange(Reading):
    """Both in one process, their messages carried by the test."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair.zj, pair.sh)
        self.pair = pair

    def begin(self, **terms: Any) -> None:
        """Empty stores, an agreement, and a register that announces."""
        self.pair.forget()
        self.clear()
        self.named = self.pair.agree(**terms)
        self.register()

    def agreement(self, hub: Hub) -> Agreement:
        return self.pair.agreement(hub, self.named)
