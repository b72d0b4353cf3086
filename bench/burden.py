"""The burden ledger beside the loop that a script would write: ``bench/burden.py [--answers N] [--json]``.

Some hundred answers of every kind are given, then copied with other applicants and numbers, one in twenty as a repeat of
the same case and one in twenty about another item in it. Ours is :func:`hub.burden.ledger`; the loop fetches the rows through a server-side cursor, reads the JSON,
keeps the last answer of a case about each item and counts, each paper once in a case. Both have to come to the same sums. ``ratio``: ours by the loop's.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
import sqlalchemy as sa

from bench import measuring

KINDS = 300  # answers that are given, the rest are copies
_COPY = """
INSERT INTO answer (id, asked_at, client, purpose, "case", item, version, language, applicant, must_submit, inputs_digest, inputs, trace, rules, said)
SELECT gen_random_uuid(), a.asked_at + n * interval '1 microsecond', f.client, a.purpose, 'c' || m, a.item,
  a.version, a.language, substring(sha256((m::text)::bytea) FOR 16), a.must_submit, a.inputs_digest,
  a.inputs, a.trace, a.rules, a.said
FROM generate_series(1, :count) AS n CROSS JOIN LATERAL (SELECT n - (n % 20 IN (0, 10))::int AS m) AS matter
  JOIN given AS a ON a.place = (n - (n % 20 = 0)::int) % :kinds + 1 JOIN given AS f ON f.place = m % :kinds + 1
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with measuring.home():
        found = measure(given.answers)
    print(json.dumps(found) if given.json else "\n".join(f"{name:>14} {value}" for name, value in found.items()))


def measure(count: int) -> dict[str, Any]:
    """Seconds of both over ``count`` answers, and what this process took in memory for it."""
    from hub import burden, database

    database.upgrade()
    engine = database.engine()
    _fill(engine, count)
    measuring.say(f"{count:,} answers are there")
    process = psutil.Process()
    before = process.memory_info().rss
    began = time.perf_counter()
    with engine.connect() as connection:
        ours = burden.ledger(connection, "item", burden.Scope(), "en")
    seconds = time.perf_counter() - began
    memory = process.memory_info().rss - before
    measuring.say(f"ours: {seconds:.1f} s")
    began = time.perf_counter()
    theirs = _loop(engine)
    loop = time.perf_counter() - began
    if theirs != {row["item"]: (row["answers"], row["demanded"], row["asked"]) for row in ours}:
        raise SystemExit(f"the two do not come to the same: {theirs} {ours}")
    began = time.perf_counter()
    with engine.connect() as connection:
        burden.still(connection, burden.Scope())
    return {
        "machine": measuring.machine(),
        "answers": count,
        "ours_seconds": round(seconds, 2),
        "loop_seconds": round(loop, 2),
        "ratio": measuring.ratio(seconds, loop),
        "still_seconds": round(time.perf_counter() - began, 2),
        "ours_client_mb": round(memory / 1e6, 1),
    }


def _fill(engine: sa.Engine, count: int) -> None:
    """Answers about every item, with facts and without, then copies of them."""
    from hub import answers, catalogue
    from hub.answers import Question

    today = catalogue.today()
    items = [item for code in catalogue.published() if (item := catalogue.in_force(code, today))]
    for place in range(KINDS):
        item = items[place % len(items)]
        applicant = (
            "cn.uscc:91310117MA1J3AJ43G" if item.applicant.kind == "organisation" else "cn.ric:11010519491231002X"
        )
        facts = {name: fact.domain({5})[place % 2] for name, fact in item.facts.items() if (place // len(items)) % 3}
        answers.ask(engine, Question((item.code,), applicant, f"hall-{place % 7}", "measure", facts, case=f"k{place}"))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TEMP TABLE given AS SELECT *, row_number() OVER () AS place FROM answer"))
        connection.execute(sa.text(_COPY), {"count": count, "kinds": KINDS})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE answer"))


def _loop(engine: sa.Engine) -> dict[str, tuple[int, int, int]]:
    """Answers, demanded and asked by item, row by row."""
    from hub import catalogue

    provinces = {
        (item.code, item.version, requirement.code): [use.region for use in requirement.options[0].materials]
        for versions in catalogue.published().values() for item in versions for requirement in item.requirements
    }  # fmt: skip
    cases: dict[tuple[Any, ...], dict[str, tuple[Any, ...]]] = collections.defaultdict(dict)
    rows = """SELECT id, asked_at, client, "case", item, version, applicant, text FROM answer
        JOIN answer_text ON digest = rules ORDER BY asked_at, id"""
    with engine.connect().execution_options(stream_results=True, max_row_buffer=10_000) as connection:
        for row in connection.execute(sa.text(rows)):
            wanted: dict[str, int] = {}
            for rule in json.loads(row.text)["requirements"]:
                for material in rule["materials"]:
                    applies = rule["disposition"] != "not_required" and rule["reason"] != "fact-missing"
                    wanted[material] = max(wanted.get(material, 0), applies)
            papers = {
                (use["material"], use["holder"], region)
                for rule in json.loads(row.text)["requirements"] if rule.get("must_submit")
                for use, region in zip(rule["options"][0], provinces[row.item, row.version, rule["requirement"]], strict=True)
                if use["state"] in ("missing", "expired")
            }  # fmt: skip
            said = (row.asked_at, row.id, sum(wanted.values()), papers)
            cases[row.client, row.case, bytes(row.applicant)][row.item] = said
    counts: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    for answers in cases.values():
        certain = {paper[:2] for *_, papers in answers.values() for paper in papers if paper[2]}
        before: set[Any] = set()
        for item, (_, _, demanded, papers) in sorted(answers.items(), key=lambda one: one[1][:2]):
            new = {paper for paper in papers - before if paper[2] or paper[:2] not in certain}
            before |= papers
            for place, more in enumerate((1, demanded, len({paper[0] for paper in new}))):
                counts[item][place] += more
    return {item: (found[0], found[1], found[2]) for item, found in counts.items()}


if __name__ == "__main__":
    main()
