"""Comparison of the catalogue 规范比对: where regions or levels disagree about what goes by one basic code.

One basic code means one matter: name, type, basis in law and materials should be the same at every level and in every
region, and the implementation code should carry it. Compared are the authored items in force and the implementation lists
that came through the pipeline, as sets, in the database. What an entry does not say is no disagreement.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import orjson
import sqlalchemy as sa

from connectors.errors import UsageError
from hub import catalogue
from mappings import codes, model
from mappings.items import Item


def compare(connection: sa.Connection, on: dt.date, basic_code: str | None = None) -> dict[str, Any]:
    """What disagrees on that day about ``basic_code``, or about all of them.

    ``compared``: basic codes that more than one list has. ``items``: those with ``differences`` (``field``, and for each of
    its ``values`` the ``codes`` and ``regions`` that say so). ``same_name``: one name under several basic codes.
    ``without_basis``: authored requirements that cite no law: nobody can be asked for them. UsageError ``basic-code-unknown``.
    """
    items = [item for code in catalogue.published() if (item := catalogue.in_force(code, on))]
    bind = {
        "authored": orjson.dumps([_authored(item) for item in items]).decode(),
        "types": orjson.dumps(codes.read("item-type")).decode(),
        "material": catalogue.LISTED,
        "day": on,
        "basic_code": basic_code,
    }
    entries = [dict(row) for row in connection.execute(sa.text(_ENTRIES + _LISTED), bind).mappings()]
    if basic_code is not None and not entries:
        raise UsageError("basic-code-unknown", code=catalogue.shown(basic_code))
    differing = connection.execute(sa.text(_ENTRIES + _DIFFERENCES), bind).mappings().all()
    shared = connection.execute(sa.text(_ENTRIES + _SAME_NAME), bind).mappings()
    found: dict[str, dict[str, Any]] = {}
    for row in differing:
        found.setdefault(row["basic_code"], {"basic_code": row["basic_code"], "differences": []})
        found[row["basic_code"]]["differences"].append({"field": row["field"], "values": row["values"]})
    for entry in entries:
        if entry["basic_code"] in found:
            found[entry["basic_code"]].setdefault("entries", []).append(entry)
    return {
        "on": on.isoformat(),
        "compared": connection.scalar(sa.text(_ENTRIES + _SHARED), bind),
        "entries": len(entries),
        "items": list(found.values()),
        "same_name": [dict(row) for row in shared],
        "without_basis": [
            {"item": item.code, "version": item.version, "requirement": requirement.code, "name": requirement.name.zh}
            for item in items
            if basic_code in (None, item.basic_code)
            for requirement in item.requirements
            if requirement.legal_basis is None
        ],
    }


def _authored(item: Item) -> dict[str, Any]:
    return {
        "basic_code": item.basic_code,
        "code": item.code,
        "region": item.region,
        "level": item.level,
        "name": item.name.zh,
        "type": item.type,
        "basis": item.legal_basis.zh,
        "materials": "；".join(model.load(code).name.zh for code in item.materials()),
        "source": "catalogue",
    }


# Texts are compared without their blanks and widths; materials as a set, whatever their order.
_ENTRIES = r"""
WITH listed AS (
  SELECT basic_code, code, region, level, name, type, basis, materials, source
  FROM jsonb_to_recordset(cast(:authored AS jsonb))
    AS a (basic_code text, code text, region text, level text, name text, type text, basis text, materials text, source text)
  UNION ALL
  SELECT document -> 'attributes' ->> 'basic_code', document ->> 'certificate_number', region,
    document -> 'attributes' ->> 'level', document ->> 'name', document -> 'attributes' ->> 'item_type',
    document -> 'attributes' ->> 'legal_basis', document -> 'attributes' ->> 'materials', source
  FROM held WHERE material = :material AND status = 'in_force'
    AND (valid_from IS NULL OR valid_from <= :day) AND (valid_to IS NULL OR valid_to >= :day)
), entry AS (
  SELECT l.basic_code, l.code, l.region, l.level, l.source,
    regexp_replace(normalize(l.name, NFKC), '\s', '', 'g') AS name,
    coalesce(cast(:types AS jsonb) ->> l.type, l.type) AS type,
    regexp_replace(normalize(l.basis, NFKC), '\s', '', 'g') AS basis,
    (SELECT string_agg(DISTINCT each, '；' ORDER BY each) FROM regexp_split_to_table(
       regexp_replace(normalize(l.materials, NFKC), '\s', '', 'g'), '[;、|]') AS each WHERE each <> '') AS materials,
    -- Of the 31 characters of an implementation code the last twelve are the basic code.
    CASE WHEN length(l.code) = 31 THEN right(l.code, 12) END AS carried
  FROM listed AS l
  WHERE l.basic_code IS NOT NULL
)
"""
_LISTED = """
SELECT basic_code, code, region, level, source, name FROM entry
WHERE cast(:basic_code AS text) IS NULL OR basic_code = :basic_code ORDER BY basic_code, region, code
"""
_SHARED = """
SELECT count(*) FROM (
  SELECT FROM entry WHERE cast(:basic_code AS text) IS NULL OR basic_code = :basic_code
  GROUP BY basic_code HAVING count(*) > 1) AS shared
"""
_DIFFERENCES = """
, said AS (
  SELECT e.basic_code, v.place, v.field, v.value, e.code, e.region FROM entry AS e
    CROSS JOIN LATERAL (VALUES (1, 'name', e.name), (2, 'type', e.type), (3, 'basis', e.basis), (4, 'materials', e.materials),
      (5, 'code', CASE WHEN e.carried <> e.basic_code THEN e.carried END)) AS v (place, field, value)
  WHERE v.value IS NOT NULL AND (cast(:basic_code AS text) IS NULL OR e.basic_code = :basic_code)
), grouped AS (
  SELECT basic_code, place, field, value, array_agg(code ORDER BY code) AS codes,
    array_agg(DISTINCT region ORDER BY region) AS regions
  FROM said GROUP BY basic_code, place, field, value
)
SELECT basic_code, field,
  jsonb_agg(jsonb_build_object('value', value, 'codes', codes, 'regions', regions) ORDER BY value) AS values
FROM grouped GROUP BY basic_code, place, field HAVING count(*) > 1 OR field = 'code' ORDER BY basic_code, place
"""
_SAME_NAME = """
SELECT name, array_agg(DISTINCT basic_code ORDER BY basic_code) AS basic_codes, array_agg(code ORDER BY code) AS codes
FROM entry WHERE name IS NOT NULL GROUP BY name
HAVING count(DISTINCT basic_code) > 1 AND (cast(:basic_code AS text) IS NULL OR :basic_code = ANY(array_agg(basic_code)))
ORDER BY name
"""
