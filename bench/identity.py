"""Identity against the truth: ``bench/identity.py --people N --seed S [--json]`` prints
``{"people","false_merges","missed_links","review_recall","review_precision"}``.

The synthetic departments' links, and the documents that name people by changing numbers, go through the whole pipeline in
pieces and in random order. Counted is what cannot be excused: pairs of identifiers made one that are not one subject; pairs
that a good row links, and records of one subject, that are neither one nor reported as contradictory.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from bench import measuring

# Delivered in files; the links alone would leave nothing to find under them.
SOURCES = {
    "cn-nia-documents": "nia",
    "cn-samr-conversions": "samr",
    "sh-hrss-insurance": "hrss/sh",
    "zj-hrss-insurance": "hrss/zj",
    "sh-nhc-births": "nhc/certificates",
    "sh-mnr-titles": "mnr",
    **{f"{code}-amr-enterprises": f"amr/{code}" for code in ("sh", "js", "zj", "ah")},
}
DIVIDED = ("cn-nia-documents", "cn-samr-conversions")  # and loaded in so many pieces
PIECES = 5
DIRT = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with measuring.home() as here:
        found = measure(here.path, given.people, given.seed)
    if given.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:>20} {value}")


def measure(here: Path, people: int, seed: int) -> dict[str, Any]:
    """Generate, load and count, in the home ``here`` with its database running."""
    from demo.synthesis import Parameters, synthesise

    say("generating")
    folder = synthesise(Parameters(people, max(people // 4, 400), seed, DIRT), here / "synthetic").folder
    started = time.perf_counter()
    accepted = load(folder, seed)
    say(f"loaded {accepted} rows in {time.perf_counter() - started:.0f} s")
    found: dict[str, Any] = {"people": people, **counted(folder)}
    recall, precision = _review(here, folder)
    return {**found, "review_recall": recall, "review_precision": precision}


def load(folder: Path, seed: int) -> int:
    """Every file through the pipeline, in an order that the seed decides; returns the rows accepted."""
    from hub import pipeline

    chance = random.Random(seed)  # noqa: S311 - an order, no secret
    pieces = [(name, path) for name, place in SOURCES.items() for path in _pieces(name, folder / place, chance)]
    chance.shuffle(pieces)
    accepted = 0
    for number, (name, path) in enumerate(pieces, start=1):
        say(f"{number}/{len(pieces)} {name}")
        accepted += pipeline.run(name, input=path)["accepted"]
    return accepted


def _pieces(name: str, place: Path, chance: random.Random) -> list[Path]:
    """The files of a source; those of links cut into pieces of random rows."""
    files = [path for path in sorted(place.rglob("*")) if path.is_file()]
    if name not in DIVIDED:
        return files
    made = []
    for path in files:
        head, *lines = path.read_bytes().splitlines(keepends=True)
        chance.shuffle(lines)
        for number in range(PIECES):
            piece = path.with_name(f"{path.stem}-{number}{path.suffix}")
            piece.write_bytes(head + b"".join(lines[number::PIECES]))
            made.append(piece)
    return made


def counted(folder: Path) -> dict[str, int]:
    """False merges and missed links of the store against the truth in ``folder``."""
    import pyarrow.parquet as pq

    from hub import copying, database, digests, home

    keyed = {"identifier": pa.binary(16)}
    with database.engine().connect() as connection:
        members = copying.out_of(
            connection,
            "SELECT identifier, cluster, state = 'contradictory' AS contradictory FROM identity_member",
            pa.schema({**keyed, "cluster": pa.binary(16), "contradictory": pa.bool_()}),
            {},
        )
        held = copying.out_of(connection, _HELD, pa.schema({**keyed, "material": pa.string()}), {})
    truth = folder / "truth"
    links = pq.read_table(truth / "links.parquet", columns=["subject", "scheme", "value"])
    certificates = pq.read_table(truth / "certificates.parquet", columns=["material", "holders", "subjects", "held"])
    with duckdb.connect() as engine:
        engine.register("links", links)
        engine.register("certificates", certificates)
        owners = engine.sql("SELECT DISTINCT subject, scheme || ':' || value AS text FROM links").to_arrow_table()
        pairs = engine.sql(
            """SELECT holders[1] AS one, holders[2] AS other, subjects[1] AS subject FROM certificates
            WHERE material = 'identity-link' AND held"""
        ).to_arrow_table()
        hashing = home.keyed_hash()
        engine.register("owner", owners.append_column("identifier", digests.keyed(owners["text"], hashing)))
        for side in ("one", "other"):
            pairs = pairs.append_column(f"{side}_key", digests.keyed(pairs[side], hashing))
        for name, table in {"member": members, "held": held, "pair": pairs}.items():
            engine.register(name, table)
        return {name: int(engine.sql(query).fetchall()[0][0]) for name, query in _COUNTS.items()}


def _review(here: Path, folder: Path) -> tuple[float | None, float | None]:
    """Recall and precision of the review queue; nothing where there is none."""
    if importlib.util.find_spec("bench.review") is None:
        return None, None
    found: tuple[float, float] = importlib.import_module("bench.review").measure(here, folder)
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# Whoever a holder is: what is held under an identifier that no subject of the truth has is lost to everybody.
_HELD = """
SELECT DISTINCT w.identifier, h.material FROM holding_holder AS w JOIN holding AS h ON h.key = w.holding
"""
_COUNTS = {
    # Pairs within clusters, less the pairs of one subject within clusters.
    "false_merges": """
WITH whose AS (SELECT m.cluster, o.subject FROM member AS m JOIN owner AS o USING (identifier))
SELECT (SELECT coalesce(sum(n * (n - 1) // 2), 0) FROM (SELECT count(*) AS n FROM whose GROUP BY cluster))
  - (SELECT coalesce(sum(n * (n - 1) // 2), 0) FROM (SELECT count(*) AS n FROM whose GROUP BY cluster, subject))
""",
    "missed_links": """
SELECT (
  SELECT count(*) FROM pair AS p JOIN owner AS x ON x.identifier = p.one_key JOIN owner AS y ON y.identifier = p.other_key
    LEFT JOIN member AS m ON m.identifier = p.one_key LEFT JOIN member AS n ON n.identifier = p.other_key
  WHERE x.subject = y.subject AND m.cluster IS DISTINCT FROM n.cluster
    AND NOT coalesce(m.contradictory, false) AND NOT coalesce(n.contradictory, false)
) + (SELECT count(*) FROM pair AS p LEFT JOIN member AS m ON m.identifier = p.one_key WHERE m.identifier IS NULL)
  + (SELECT count(*) FROM held AS h ANTI JOIN owner USING (identifier))
""",
}


if __name__ == "__main__":
    main()
