"""Two stores filled with so many certificates for measurements of the index: what one hub holds and has announced, and what
the other has taken in of it, written set-based.

The rows are those that merges would leave (``tests/test_bench_exchange.py`` compares); only the road there is short. ``i``-th
certificate: key, version, position in the feed and holder follow from ``i`` alone, so either side is made without asking the other.
"""

from __future__ import annotations

import secrets
from typing import Any

import sqlalchemy as sa

from bench import neighbours
from bench.neighbours import Variables

SOURCE, MATERIAL = "zj-hub-index", "household-register"
BLOCK = 1_000_000  # certificates written by one transaction


def hold(provider: sa.Engine, first: int, last: int) -> None:
    """The provider holds the certificates ``first`` to ``last`` and has announced each; those before are there already."""
    from hub import partitions

    with provider.begin() as connection:
        partitions.ensure(connection)
        connection.execute(sa.text(_REGISTER))
    for start in range(first, last + 1, BLOCK):
        bind = {"first": start, "last": min(last, start + BLOCK - 1)}
        with provider.begin() as connection:
            for statement in (_MADE, *_HOLD):
                connection.execute(sa.text(statement), bind)
    tidy(provider)


def keys(provider: Variables, receiver: Variables, agreement: str) -> dict[str, Any]:
    """What either side makes ids with under ``agreement``: what :func:`take_in` needs to know."""
    from hub import database, home
    from hub.exchange import agreements, announced

    named = agreements.parsed(agreement)
    assert named is not None
    with neighbours.acting(provider), database.engine().begin() as connection:
        given = announced.given(connection, agreements.opened(agreements.versions(connection, named[0])[0]))
    with neighbours.acting(receiver):
        own = home.keyed_hash()
    return {
        "source": SOURCE, "epoch": given.epoch, "their_inner": given.key.inner, "their_outer": given.key.outer,
        "own_inner": own.inner, "own_outer": own.outer,
    }  # fmt: skip


def take_in(receiver: sa.Engine, known: dict[str, Any], first: int, last: int) -> None:
    """The receiver has read the announcements ``first`` to ``last``, as it has read those before: like them, but for what
    differs from one certificate to the next."""
    for start in range(first, last + 1, BLOCK):
        span = {"first": start, "last": min(last, start + BLOCK - 1), "block": secrets.randbits(42)}
        with receiver.begin() as connection:
            connection.execute(sa.text("SET LOCAL work_mem = '256MB'"))
            for statement in (_MADE, *_TAKE_IN):
                connection.execute(sa.text(statement), {**known, **span})
    with receiver.begin() as connection:
        connection.execute(sa.text(_CURSOR), {"source": SOURCE, "last": last})
    tidy(receiver)


def change(provider: sa.Engine, rows: int, count: int, turn: int, turns: int) -> None:
    """``count`` of the ``rows`` certificates are changed, spread over all of them, others in each of ``turns``."""
    bind = {"count": count, "turn": turn, "step": rows // count, "stride": max(1, rows // count // turns)}
    with provider.begin() as connection:
        for statement in _CHANGE:
            connection.execute(sa.text(statement), bind)


def tidy(engine: sa.Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM (ANALYZE)"))


_REGISTER = """INSERT INTO source (name, entity, authority, region, extent, promise_seconds)
VALUES ('zj-ga-households', 'household-register', 100, '330000', 'changes', 172800) ON CONFLICT DO NOTHING"""
KEY = "substr(sha256(convert_to({i}::text, 'UTF8')), 1, 16)"
# Positions are in the order of keys within a block: neighbours in the feed are none in the store.
_MADE = f"""CREATE TEMP TABLE made ON COMMIT DROP AS
SELECT i, key, md5('version ' || i)::uuid AS digest, :first - 1 + row_number() OVER (ORDER BY key) AS position,
  '330106' || 19500101 + i % 30000 || lpad((i % 10000)::text, 4, '0') AS person
FROM (SELECT i, {KEY.format(i="i")} AS key FROM generate_series(cast(:first AS bigint), :last) AS i) AS k"""
_HOLD = (
    """INSERT INTO holding (key, mapped, material, source, row_key, digest, updated_at, authority, observations, conflicting,
      status, valid_from, region, batch)
    SELECT key, i, 'household-register', 'zj-ga-households', md5(i::text)::uuid, digest, now(), 100, 1, false, 'in_force',
      '2020-01-01', '330106', 'b' FROM made ORDER BY key""",
    """INSERT INTO mapped_row (holding, id, source, row_key, file, "row", document)
    SELECT key, i, 'zj-ga-households', md5(i::text)::uuid, 1, i, json_build_object('certificate_number', 'ZJ-' || i,
      'name', '居民户口簿', 'issuer_name', '杭州市公安局西湖分局', 'region', '330106', 'issued_on', '2020-01-01',
      'valid_from', '2020-01-01', 'status', 'in_force', 'holders', json_build_array(json_build_object('role', 'holder',
        'scheme', 'cn.ric', 'value', person, 'name', '示例')),
      'attributes', json_build_object('address', '浙江省杭州市西湖区示例路 ' || i || ' 号', 'members', 3))
    FROM made ORDER BY key""",
    # All of one time: what is announced later by a fill is otherwise like what was read before it.
    """INSERT INTO feed (position, holding, material, change, digest, batch, recorded_at)
    SELECT position, key, 'household-register', 'added', digest, 'b', coalesce((SELECT max(recorded_at) FROM feed), now())
    FROM made ORDER BY position""",
    "UPDATE feed_head SET position = :last, recorded_at = greatest(recorded_at, (SELECT max(recorded_at) FROM feed))",
)
_TAKE_IN = (
    """CREATE TEMP TABLE announced ON COMMIT DROP AS
    SELECT i, position, handle, subject, version, md5(chr(31) || '32:' || upper(handle))::uuid AS row_key,
      keyed_hash('index-entry' || chr(31) || handle, :own_inner, :own_outer) AS holding,
      keyed_hash('index:' || :source || ':' || :epoch || ':' || subject, :own_inner, :own_outer) AS identifier,
      (:block + (i >> 20)) << 20 | (i & 1048575) AS mapped
    FROM (
      SELECT i, position,
        encode(keyed_hash('holding:' || encode(key, 'hex'), :their_inner, :their_outer), 'hex') AS handle,
        encode(keyed_hash('cn.ric:' || person, :their_inner, :their_outer), 'hex') AS subject,
        encode(keyed_hash('version:' || replace(digest::text, '-', ''), :their_inner, :their_outer), 'hex') AS version
      FROM made OFFSET 0
    ) AS said""",
    """CREATE TEMP TABLE pattern ON COMMIT DROP AS
    SELECT m.document, m.file, l.row_key, l.holding, e.identifier, e.handle, encode(e.handle, 'hex') AS said_handle, e.digest AS said_version,
      d -> 'attributes' ->> 'subjects' AS said_subjects, d -> 'attributes' ->> 'position' AS said_position
    FROM (SELECT * FROM index_entry WHERE source = :source AND recorded_to IS NULL LIMIT 1) AS e
      CROSS JOIN row_ledger AS l JOIN mapped_row AS m ON m.holding = l.holding AND m.id = l.mapped
      CROSS JOIN LATERAL (SELECT m.document::jsonb AS d) AS read
    WHERE l.source = :source AND l.row_key = md5(chr(31) || '32:' || upper(encode(e.handle, 'hex')))::uuid""",
    """INSERT INTO mapped_row (holding, id, source, row_key, file, "row", document)
    SELECT a.holding, a.mapped, :source, a.row_key, p.file, a.position,
      replace(replace(replace(replace(p.document, p.said_handle, a.handle), p.said_version, a.version),
        p.said_subjects, 'holder:' || a.subject), '"position":' || p.said_position, '"position":' || a.position)
    FROM announced AS a CROSS JOIN pattern AS p ORDER BY a.holding""",
    """INSERT INTO row_ledger (source, row_key, digest, contract, verdict, in_force, timed, updated_at, as_of, lacked, batch, file, "row",
      holding, mapped, authority, said_digest, said_at, said_as_of)
    SELECT l.source, a.row_key, md5(a.handle)::uuid, l.contract, l.verdict, l.in_force, l.timed, l.updated_at, l.as_of, l.lacked,
      l.batch, l.file, a.position, a.holding, a.mapped, l.authority, md5(a.handle)::uuid, l.said_at, l.said_as_of
    FROM announced AS a CROSS JOIN pattern AS p JOIN row_ledger AS l ON l.source = :source AND l.row_key = p.row_key
    ORDER BY a.row_key""",
    """INSERT INTO index_entry (identifier, source, handle, role, recorded_from, material, region, status, valid_from, valid_to,
      digest, epoch, batch, file, "row")
    SELECT a.identifier, e.source, decode(a.handle, 'hex'), e.role, e.recorded_from, e.material, e.region, e.status, e.valid_from,
      e.valid_to, a.version, e.epoch, e.batch, e.file, a.position
    FROM announced AS a CROSS JOIN pattern AS p JOIN index_entry AS e
      ON e.identifier = p.identifier AND e.source = :source AND e.handle = p.handle
    ORDER BY a.identifier""",
)
_CURSOR = (
    "UPDATE source SET cursor = jsonb_set(cursor, '{position}', to_jsonb(cast(:last AS bigint))) WHERE name = :source"
)
_CHANGE = (
    f"""CREATE TEMP TABLE picked ON COMMIT DROP AS
    SELECT h.key, h.mapped, row_number() OVER (ORDER BY h.key) AS place
    FROM generate_series(cast(0 AS bigint), :count - 1) AS n
      JOIN holding AS h ON h.key = {KEY.format(i="(1 + n * :step + :turn * :stride)")}""",
    """INSERT INTO mapped_row (holding, id, source, row_key, file, "row", document)
    SELECT m.holding, m.id + (1::bigint << 40), m.source, m.row_key, 2, m."row",
      (m.document::jsonb || jsonb_build_object('valid_to', '2040-01-01'))::text
    FROM picked AS p JOIN mapped_row AS m ON m.holding = p.key AND m.id = p.mapped""",
    """UPDATE holding AS h SET mapped = h.mapped + (1::bigint << 40), digest = gen_random_uuid(), valid_to = '2040-01-01', batch = 'c'
    FROM picked AS p WHERE h.key = p.key""",
    """INSERT INTO feed (position, holding, material, change, digest, batch, recorded_at)
    SELECT f.position + p.place, h.key, h.material, 'changed', h.digest, 'c', now()
    FROM picked AS p JOIN holding AS h ON h.key = p.key CROSS JOIN feed_head AS f""",
    "UPDATE feed_head SET position = position + :count, recorded_at = now()",
)
