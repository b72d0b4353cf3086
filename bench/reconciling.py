"""What it weighs to find out that two hubs hold the same records, and which ten do not, beside sending them all
(``yici bench exchange --only reconcile``).

The two are those of :mod:`bench.feed`, when the one has read everything the other announces. Bytes are those of whole messages,
both ways, counted where they go out.
"""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa

from bench import announcements, measuring, neighbours
from bench.announcements import SOURCE
from bench.neighbours import Variables

# Of ten records: the receiver lacks four, four are another version at the provider, two are no longer held there. No feed tells.
LOST, ALTERED, GONE = 4, 4, 2


def measure(provider: Variables, receiver: Variables, agreement: str, rows: int, sent: int) -> dict[str, Any]:
    """``sent``: bytes that it took to read all of them."""
    equal = _reconciled(receiver)
    if not equal["result"]["equal"] or equal["result"]["records"] != {"here": rows, "there": rows}:
        raise SystemExit(f"not equal from the start: {equal['result']}")
    wanted = _disturb(provider, receiver, agreement, rows)
    differing = _reconciled(receiver)
    named = {
        one["handle"]: one["difference"] for one in differing["result"]["named"] if one["difference"] != "entries_amiss"
    }
    if named != wanted or not differing["result"]["differences"]["all_named"]:
        raise SystemExit(f"{len(named.items() & wanted.items())} of {len(wanted)} found, {len(named)} named")
    measuring.say(
        f"reconciled {rows:,}: equal {equal['bytes']:,} bytes, {len(wanted)} differing {differing['bytes']:,}, all {sent:,}"
    )
    return {
        "bytes": {"all": sent, "equal": equal["bytes"], "differing": differing["bytes"]},
        "messages": {"equal": equal["messages"], "differing": differing["messages"]},
        "found": len(named),
        "seconds": {"reconcile_equal": equal["seconds"], "reconcile_differing": differing["seconds"]},
        "ratios": {
            "reconcile_equal_bytes": round(equal["bytes"] / sent, 6),
            "reconcile_differing_bytes": round(differing["bytes"] / sent, 6),
        },
    }


def _reconciled(receiver: Variables) -> dict[str, Any]:
    from hub.exchange import reconciliation

    with neighbours.acting(receiver), neighbours.wired() as wire:
        began = time.perf_counter()
        (result,) = reconciliation.reconcile("zj")
        seconds = time.perf_counter() - began
    return {"result": result.shown(), "bytes": wire.bytes, "messages": wire.messages, "seconds": round(seconds, 2)}


def _disturb(provider: Variables, receiver: Variables, agreement: str, rows: int) -> dict[str, str]:
    """Handle of each record that differs from now on -> how."""
    known = announcements.keys(provider, receiver, agreement)
    count = LOST + ALTERED + GONE
    bind = {**known, "step": rows // count, "count": count, "lost": LOST, "altered": LOST + ALTERED}
    with neighbours.store(provider).begin() as connection:
        picked = connection.execute(sa.text(_PICKED), bind).all()
        for statement, how in ((_ALTER, "differing"), (_DROP, "missing_there")):
            connection.execute(sa.text(statement), {"keys": [row.key for row in picked if row.how == how]})
    lost = [row.handle for row in picked if row.how == "missing_here"]
    with neighbours.store(receiver).begin() as connection:
        gone = connection.execute(sa.text(_RECEIVER), {"source": SOURCE, "handles": lost}).rowcount
    if gone != LOST:
        raise SystemExit(f"{gone} ledger rows of {LOST}")
    return {row.handle: row.how for row in picked}


_PICKED = f"""
SELECT key, encode(keyed_hash('holding:' || encode(key, 'hex'), :their_inner, :their_outer), 'hex') AS handle,
  CASE WHEN n < :lost THEN 'missing_here' WHEN n < :altered THEN 'differing' ELSE 'missing_there' END AS how
FROM (SELECT n, {announcements.KEY.format(i="(1 + n * :step)")} AS key
  FROM generate_series(cast(0 AS bigint), :count - 1) AS n) AS p"""
_ALTER = "UPDATE holding SET digest = gen_random_uuid() WHERE key = ANY(:keys)"
_DROP = "DELETE FROM holding WHERE key = ANY(:keys)"
_RECEIVER = """DELETE FROM row_ledger WHERE source = :source
AND row_key IN (SELECT md5(chr(31) || '32:' || upper(h))::uuid FROM unnest(cast(:handles AS text[])) AS h)"""
