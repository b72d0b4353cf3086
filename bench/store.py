"""A store filled for the lookup measurement: as many business licences as asked for, written set-based.

The rows are those a merge would leave (source, landed file, ledger's observation, holding, holders); only the road there
is short, because the measurement is of reading.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from demo.columns import digits, join, pick, strings
from hub.home import keyed_hash
from mappings.checksums import GB_32100, mod_31

SOURCE = "sh-amr-enterprises"
BLOCK = 250_000
REPRESENTATIVE = "11010519491231002X"  # the published example of GB 11643, nobody's


def fill(engine: sa.Engine, count: int) -> None:
    """``count`` licences in force and what belongs to them."""
    hashing = keyed_hash()
    bind = {"inner": hashing.inner, "outer": hashing.outer, "source": SOURCE}
    with engine.begin() as connection:
        connection.execute(sa.text(_SOURCES))
        connection.execute(sa.text(_FILE), bind)
        connection.execute(sa.text(_BATCH), bind)
        connection.execute(sa.text("CREATE TEMP TABLE code (place bigint, value text) ON COMMIT DROP"))
        raw = connection.connection.driver_connection
        assert raw is not None
        with raw.cursor().copy("COPY code FROM STDIN") as copy:
            for start in range(0, count, BLOCK):
                size = min(BLOCK, count - start)
                number = pa.array(np.arange(start, start + size)).cast(pa.string())
                lines = join(number, "\t", codes(start, size), "\n")
                copy.write("".join(lines.to_pylist()))
        for statement in _FILL:
            connection.execute(sa.text(statement), bind)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM (ANALYZE)"))


def codes(start: int, count: int) -> pa.StringArray:
    """Valid credit codes, the n-th always the same."""
    number = np.arange(start, start + count)
    subject = pick(tuple(GB_32100), number % 31)
    body = strings(
        np.concatenate(
            [np.frombuffer(b"91310117MA", dtype=np.uint8)[None].repeat(count, 0), digits(number // 31, 6)], axis=1
        )
    )
    body = join(body, subject)
    flat = np.frombuffer("".join(body.to_pylist()).encode("ascii"), dtype=np.uint8).reshape(-1, 17)
    return join(body, pick(tuple(map(chr, range(128))), mod_31(flat)))


def bodies(path: Path, count: int, holdings: int, seed: int = 1) -> None:
    """``count`` request bodies, one a line; nine subjects in ten are held."""
    places = pa.array(np.random.default_rng(seed).integers(0, holdings, count))
    known = codes(0, holdings).take(places)
    unknown = codes(holdings, count)
    asked = pc.if_else(pa.array(np.arange(count) % 10 == 0), unknown, known)
    question = {
        "items": ["demo-food-permit"],
        "facts": {"legal_representative_in_person": True},
        "roles": {"legal_representative": f"cn.ric:{REPRESENTATIVE}"},
    }
    with path.open("w") as file:
        for value in asked.to_pylist():
            file.write(json.dumps({**question, "id": f"cn.uscc:{value}"}) + "\n")


_SOURCES = """
INSERT INTO source (name, entity, region, authority, extent, promise_seconds, last_success_at)
VALUES ('sh-amr-enterprises', 'business-licence', '310000', 100, 'partial', 172800, now()),
  ('sh-ga-residents', 'resident-id-card', '310000', 100, 'changes', 93600, now())
"""
_BATCH = """INSERT INTO batch (id, source, state, extent, contract, merges_seen, recorded_at)
VALUES ('bench', :source, 'merged', 'partial', '', 0, now())"""
_FILE = "INSERT INTO landed_file (source, digest, name, size) VALUES (:source, 'bench', 'bench.csv', 1)"
_FILL = (
    # Dates and districts as various as in a register: seven licences in ten have no end, the others are for thirty years.
    """CREATE TEMP TABLE made ON COMMIT DROP AS
    SELECT *, jsonb_build_object('certificate_number', value, 'status', 'in_force', 'region', region,
        'valid_from', valid_from, 'valid_to', valid_to, 'attributes', '{}'::jsonb,
        'holders', jsonb_build_array(jsonb_build_object('role', 'holder', 'scheme', 'cn.uscc', 'value', value))) AS document
    FROM (SELECT *, CASE WHEN place % 10 > 6 THEN (valid_from + interval '30 years')::date END AS valid_to
    FROM (SELECT place, value, keyed_hash('business-licence' || chr(31) || value, :inner, :outer) AS key,
      keyed_hash('cn.uscc:' || value, :inner, :outer) AS identifier, md5(value)::uuid AS row_key,
      date '2006-01-01' + (place * 7919 % 7000)::int AS valid_from,
      (ARRAY['310101', '310104', '310105', '310106', '310107', '310109', '310110', '310112', '310113', '310114', '310115', '310116',
        '310117', '310118', '310120', '310151'])[place * 31 % 16 + 1] AS region
    FROM code) AS c) AS d""",
    """INSERT INTO mapped_row (holding, id, source, row_key, file, "row", document)
    SELECT key, place, :source, row_key, f.id, place + 2, document::text
    FROM made CROSS JOIN (SELECT max(id) AS id FROM landed_file) AS f ORDER BY key""",
    """INSERT INTO row_ledger (source, row_key, digest, contract, verdict, timed, updated_at, as_of, batch, file, "row", holding,
      authority, said_digest, said_at, mapped)
    SELECT :source, row_key, row_key, row_key, 'accepted', true, now(), now(), 'bench', f.id, place + 2, key, 100, row_key,
      now(), place
    FROM made CROSS JOIN (SELECT max(id) AS id FROM landed_file) AS f ORDER BY row_key""",
    """INSERT INTO holding (key, mapped, material, source, row_key, digest, updated_at, authority, observations, conflicting,
      status, valid_from, valid_to, region, batch)
    SELECT key, place, 'business-licence', :source, row_key, row_key, now(), 100, 1, false, 'in_force', valid_from, valid_to,
      region, 'bench' FROM made ORDER BY key""",
    "INSERT INTO holding_holder (identifier, holding, role) SELECT identifier, key, 'holder' FROM made ORDER BY identifier",
)
