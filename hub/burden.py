"""The burden ledger: of the materials that the catalogue demands, how many applicants are really asked for.

Counted from the answers as they were stored, all of them in SQL ([what counts](../docs/burden.md)):

* One matter counts once. Of several answers to one client about one case, item and applicant the last one counts; where no
  case was named, the last one of a day. Questions about the past (``as_of``) are no matters.
* The unit is one material in one answer. What several requirements of an item want is wanted once, and has the worst
  outcome that any of them gives it.
* ``demanded``: wanted by a requirement that applies. Where a missing fact leaves open whether it applies, it is ``open``,
  and not yet demanded.
* ``asked``: papers that the applicant is really asked for, each once in one matter: material, whose, and of which province
  where only one will do, over all items of the case or of the day, however often and in whatever company they were looked up
  (:mod:`hub.papers`). It counts under the item that was answered first; the rest of ``submit`` and ``expired`` is asked for there.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from connectors.messages import Language
from hub import catalogue
from hub.clock import CHINA
from mappings.items import Item

By = Literal["item", "department", "region", "month", "material", "client"]
BY: tuple[By, ...] = get_args(By)
# What becomes of a material, from best to worst: the worst counts where several requirements want it.
OUTCOMES = (
    "not_required", "open", "held", "alternative_held", "held_elsewhere", "undetermined", "deferred", "expired", "submit",
)  # fmt: skip
DEMANDED = OUTCOMES[2:]
COUNTS = ("answers", "demanded", *DEMANDED, "asked", "open", "not_required")
STILL = ("asked", "held_unfit", "held_same_day", "held_later")


@dataclass(frozen=True)
class Scope:
    """Which answers are counted: from one moment to before another, about ``items`` only (None: all)."""

    since: dt.datetime | None = None
    until: dt.datetime | None = None
    items: Sequence[str] | None = None


def days(first: dt.date | None, last: dt.date | None, items: Sequence[str] | None = None) -> Scope:
    """The scope from the beginning of one day in China to the end of another."""

    def begins(day: dt.date) -> dt.datetime:
        return dt.datetime.combine(day, dt.time(), CHINA)

    ends = begins(last + dt.timedelta(days=1)) if last and last < dt.date.max else None
    return Scope(begins(first) if first else None, ends, items)


def ledger(connection: sa.Connection, by: By, scope: Scope, lang: Language) -> list[dict[str, Any]]:
    """One row for each item, department, region, month, material or client: :data:`COUNTS` and ``ratio``, asked by demanded.

    The department is the implementing body that the item's guide names; answers about items without one are in the row
    whose ``department`` is None.
    """
    counted = _EACH if by == "material" else _ALL.replace("{by}", _BY[by])
    # Where only some items are looked at, which papers the others ask for still counts.
    text = (
        _LEDGER.replace("{counted}", _COUNTED.replace("{items}", "true"))
        .replace("{by}", _BY[by])
        .replace("{answers}", counted)
        .replace("{items}", _ITEMS.format(item="c.item"))
        .replace("{trace}", _TRACE)
    )
    statement = sa.text(text).bindparams(*_BINDS, *_CATALOGUE)
    rows = connection.execute(statement, {**_bind(scope), **_known(lang)})
    return [_row({by: row.by, **{name: row._mapping[name] for name in COUNTS}}) for row in rows]


def total(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of a ledger; of one by material, ``answers`` are counted once for each material."""
    return _row({name: sum(row[name] for row in rows) for name in COUNTS})


def still(connection: sa.Connection, scope: Scope) -> list[dict[str, Any]]:
    """Requirements that ask for what is held, the most often asked first: ``item``, ``requirement``, ``material`` and :data:`STILL`.

    Of those ``asked``: ``held_unfit``, a certificate of this material in force was known of this very holder, but not
    with the province, role, validity, age or content wanted; else ``held_same_day``, another answer about the same applicant
    on the same day found it; else ``held_later``, a later answer of the scope found it: it was deposited, or a source brought it.
    """
    counted = _COUNTED.replace("{items}", _ITEMS.format(item="item"))
    text = _STILL.replace("{counted}", counted).replace("{trace}", _TRACE)
    rows = connection.execute(sa.text(text).bindparams(*_BINDS), _bind(scope))
    return [dict(row) for row in rows.mappings()]


def _row(counts: dict[str, Any]) -> dict[str, Any]:
    return {**counts, "ratio": round(counts["asked"] / counts["demanded"], 4) if counts["demanded"] else None}


def _bind(scope: Scope) -> dict[str, Any]:
    return {"since": scope.since, "until": scope.until, "items": None if scope.items is None else list(scope.items)}


def _known(lang: Language) -> dict[str, Any]:
    """What the catalogue says of every version of every item, as arrays."""
    versions = [item for found in catalogue.published().values() for item in found]
    return {
        "known_items": [item.code for item in versions],
        "known_versions": [item.version for item in versions],
        "known_bodies": [getattr(item.guide.body, lang) if item.guide.body else None for item in versions],
        "known_regions": [item.region for item in versions],
        **_of_provinces(versions),
    }


def _of_provinces(versions: Iterable[Item]) -> dict[str, Any]:
    """Papers of which only a certain province's will do, by their place in the preferred option: no trace has it."""
    found = [
        (item.code, item.version, requirement.code, place, use.region)
        for item in versions
        for requirement in item.requirements
        for place, use in enumerate(requirement.options[0].materials, 1)
        if use.region is not None
    ]
    return {f"use_{name}": [one[place] for one in found] for place, name in enumerate(_USE)}


_BINDS = (
    sa.bindparam("since", type_=sa.DateTime(timezone=True)),
    sa.bindparam("until", type_=sa.DateTime(timezone=True)),
    sa.bindparam("items", type_=ARRAY(sa.Text)),
)
_USE = {"items": sa.Text, "versions": sa.Integer, "requirements": sa.Text, "places": sa.Integer, "regions": sa.Text}
_CATALOGUE: tuple[sa.BindParameter[Any], ...] = (
    *(sa.bindparam(f"use_{name}", type_=ARRAY(kind)) for name, kind in _USE.items()),
    sa.bindparam("known_items", type_=ARRAY(sa.Text)), sa.bindparam("known_versions", type_=ARRAY(sa.Integer)),
    sa.bindparam("known_bodies", type_=ARRAY(sa.Text)), sa.bindparam("known_regions", type_=ARRAY(sa.Text)),
)  # fmt: skip
_BY: Mapping[By, str] = {
    "item": "c.item",
    "department": "(SELECT k.body FROM known AS k WHERE k.item = c.item AND k.version = c.version)",
    "region": "(SELECT k.region FROM known AS k WHERE k.item = c.item AND k.version = c.version)",
    "month": "to_char(c.day, 'YYYY-MM')",
    "material": "m.material",
    "client": "c.client",
}
# The text of inputs is sorted by key (hub.records), so that `as_of` stands first in it. Answers from before inputs were kept
# do not say whom they are about: they cannot be counted once.
_COUNTED = """counted AS MATERIALIZED (
  SELECT *, count(*) OVER (PARTITION BY client, applicant, about) = 1 AS alone FROM (
  SELECT DISTINCT ON (client, applicant, about, item) id, asked_at, client, applicant, about, item, version, day, rules, trace FROM (
    SELECT *, coalesce('case ' || "case", day::text) AS about FROM (
      SELECT *, (asked_at AT TIME ZONE INTERVAL '8 hours')::date AS day FROM answer) AS dated
    WHERE inputs LIKE '{"as_of"\\:null,%'
      AND (CAST(:since AS timestamptz) IS NULL OR asked_at >= :since)
      AND (CAST(:until AS timestamptz) IS NULL OR asked_at < :until)
      AND {items}) AS dated
  ORDER BY client, applicant, about, item, asked_at DESC, id DESC) AS last
)"""
_ITEMS = "(CAST(:items AS text[]) IS NULL OR {item} = ANY(:items))"
# A material of an option that is asked for, or deferred, is itself there or open when it is not what is lacking.
_OUTCOME = """max(CASE
      WHEN r.disposition = 'not_required' THEN 0
      WHEN r.reason = 'fact-missing' THEN 1
      WHEN r.must_submit ? w.material THEN CASE WHEN r.disposition = 'expired' THEN 7 ELSE 8 END
      WHEN r.deferred ? w.material THEN 6
      WHEN r.disposition = 'held' THEN 2
      WHEN r.disposition = 'alternative_held' THEN 3
      WHEN r.disposition = 'held_elsewhere' THEN 4
      WHEN jsonb_path_exists(r.options, '$[*][*] ? (@.material == $m && (@.state == "held" || @.state == "elsewhere"))',
        jsonb_build_object('m', w.material)) THEN 2
      ELSE 5 END)"""
# Marks stand in a text that is shared where keys of certificates go: none is looked at here.
_TRACE = "coalesce(t.text, a.trace)\\:\\:jsonb -> 'requirements'"
# Each text is read once, whatever number of answers says the same for the same reasons. Of answers from before texts were shared
# each has its own. The preferred option is the one that is asked for (hub/resolver.py).
_LEDGER = (
    """
WITH {counted}, known AS MATERIALIZED (
  SELECT * FROM unnest(:known_items, :known_versions, :known_bodies, :known_regions) AS k (item, version, body, region)
), certain AS MATERIALIZED (
  SELECT * FROM unnest(:use_items, :use_versions, :use_requirements, :use_places, :use_regions)
    AS k (item, version, requirement, place, region)
), matters AS MATERIALIZED (
  SELECT *, coalesce(encode(rules, 'hex'), 'own ' || id) AS told FROM counted
), said AS MATERIALIZED (
  SELECT a.told, a.item, a.version, {trace} AS rules FROM (SELECT DISTINCT ON (told, item, version) * FROM matters) AS a
    LEFT JOIN answer_text AS t ON t.digest = a.rules
), wants AS MATERIALIZED (
  SELECT s.told, s.item, s.version, w.material, """
    + _OUTCOME
    + """ AS outcome, coalesce(bool_or(r.must_submit ? w.material), false) AS asks
  FROM said AS s CROSS JOIN LATERAL jsonb_to_recordset(s.rules)
      AS r (disposition text, reason text, materials jsonb, must_submit jsonb, deferred jsonb, options jsonb)
    CROSS JOIN LATERAL jsonb_array_elements_text(r.materials) AS w (material)
  GROUP BY 1, 2, 3, 4
), lacking AS MATERIALIZED (
  SELECT DISTINCT s.told, s.item, s.version, w.material, coalesce(f.holder, 'applicant') AS holder, f.region
  FROM said AS s
    CROSS JOIN LATERAL jsonb_to_recordset(s.rules) AS r (requirement text, must_submit jsonb, options jsonb)
    CROSS JOIN LATERAL jsonb_array_elements_text(r.must_submit) AS w (material)
    LEFT JOIN LATERAL (
      SELECT o.use ->> 'holder' AS holder, k.region FROM jsonb_array_elements(r.options -> 0) WITH ORDINALITY AS o (use, place)
        LEFT JOIN certain AS k ON (k.item, k.version, k.requirement, k.place) = (s.item, s.version, r.requirement, o.place)
      WHERE o.use ->> 'material' = w.material AND o.use ->> 'state' IN ('missing', 'expired')) AS f ON true
), papers AS MATERIALIZED (
  SELECT c.id, c.asked_at, c.client, c.applicant, c.about, l.material, l.region,
    CASE WHEN l.holder = 'applicant' THEN c.applicant ELSE coalesce(
      (SELECT decode(a.inputs\\:\\:jsonb -> 'parties' -> l.holder ->> 0, 'hex') FROM answer AS a WHERE (a.id, a.asked_at) = (c.id, c.asked_at)),
      convert_to(l.holder, 'UTF8')) END AS person
  FROM matters AS c JOIN lacking AS l USING (told, item, version) WHERE NOT c.alone
), firsts AS MATERIALIZED (
  SELECT DISTINCT id, material FROM (
    SELECT id, material, row_number() OVER (PARTITION BY client, applicant, about, material, person, region ORDER BY asked_at, id) AS turn,
      region IS NULL AND bool_or(region IS NOT NULL) OVER same AS covered
    FROM papers WINDOW same AS (PARTITION BY client, applicant, about, material, person)) AS p
  WHERE turn = 1 AND NOT covered
), wanted AS (
  SELECT {by} AS by, m.outcome, m.asks AND (c.alone OR f.id IS NOT NULL) AS asked, count(*) AS n
  FROM matters AS c JOIN wants AS m USING (told, item, version) LEFT JOIN firsts AS f ON (f.id, f.material) = (c.id, m.material)
  WHERE {items}
  GROUP BY 1, 2, 3
), answers AS ({answers})
SELECT s.by, s.answers, """
    + ", ".join(
        f"coalesce(sum(n) FILTER (WHERE outcome = {place}), 0)::bigint AS {name}" for place, name in enumerate(OUTCOMES)
    )
    + """,
  coalesce(sum(n) FILTER (WHERE outcome >= 2), 0)::bigint AS demanded, coalesce(sum(n) FILTER (WHERE asked), 0)::bigint AS asked
FROM answers AS s LEFT JOIN wanted AS w ON w.by IS NOT DISTINCT FROM s.by
GROUP BY s.by, s.answers ORDER BY s.by NULLS LAST
"""
)
_ALL = "SELECT {by} AS by, count(*) AS answers FROM counted AS c WHERE {items} GROUP BY 1"
_EACH = "SELECT by, sum(n)::bigint AS answers FROM wanted GROUP BY 1"
_STILL = """
WITH {counted}, wanted AS (
  SELECT c.item, c.applicant, c.day, c.asked_at, r.requirement, f.material, f.holder,
    EXISTS (
      SELECT FROM jsonb_array_elements(a.inputs::jsonb -> 'known' -> f.holder) AS k (found)
      WHERE found -> 1 ->> 0 = f.material AND found -> 1 ->> 2 = 'in_force'
        AND coalesce((found -> 1 ->> 3)::date <= c.day, true) AND coalesce((found -> 1 ->> 4)::date >= c.day, true)) AS unfit
  FROM counted AS c JOIN answer AS a USING (id, asked_at) LEFT JOIN answer_text AS t ON t.digest = a.rules
    CROSS JOIN LATERAL jsonb_to_recordset({trace}) AS r (requirement text, must_submit jsonb, options jsonb)
    CROSS JOIN LATERAL (
      SELECT DISTINCT ON (f.material) f.material, f.holder
      FROM jsonb_array_elements(r.options) AS o (uses) CROSS JOIN LATERAL
        jsonb_to_recordset(o.uses) AS f (material text, holder text, state text)
      WHERE r.must_submit ? f.material AND f.state IN ('missing', 'expired') ORDER BY f.material, f.holder <> 'applicant') AS f
  WHERE cardinality(a.must_submit) > 0 AND f.material = ANY(a.must_submit)
), held AS (
  SELECT DISTINCT c.applicant, f.material, c.day
  FROM counted AS c JOIN answer AS a USING (id, asked_at) LEFT JOIN answer_text AS t ON t.digest = a.rules
    CROSS JOIN LATERAL jsonb_to_recordset({trace}) AS r (options jsonb)
    CROSS JOIN LATERAL jsonb_array_elements(r.options) AS o (uses)
    CROSS JOIN LATERAL jsonb_to_recordset(o.uses) AS f (material text, holder text, state text)
  WHERE f.holder = 'applicant' AND f.state IN ('held', 'elsewhere')
), judged AS (
  SELECT w.item, w.requirement, w.material, w.unfit, s.day IS NOT NULL AS same_day, l.day > w.day AS later
  FROM wanted AS w
    LEFT JOIN held AS s ON w.holder = 'applicant' AND (s.applicant, s.material, s.day) = (w.applicant, w.material, w.day)
    LEFT JOIN (SELECT applicant, material, max(day) AS day FROM held GROUP BY 1, 2) AS l
      ON w.holder = 'applicant' AND (l.applicant, l.material) = (w.applicant, w.material)
)
SELECT item, requirement, material, count(*) AS asked, count(*) FILTER (WHERE unfit) AS held_unfit,
  count(*) FILTER (WHERE NOT unfit AND same_day) AS held_same_day,
  count(*) FILTER (WHERE NOT unfit AND NOT same_day AND coalesce(later, false)) AS held_later
FROM judged GROUP BY 1, 2, 3
HAVING bool_or(unfit OR same_day OR coalesce(later, false)) ORDER BY count(*) DESC, 1, 2, 3
"""
