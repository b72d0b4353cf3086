"""demo/allowances.py: two monthly rosters, and the truth about what changed between them."""

from __future__ import annotations

import csv

from demo import allowances
from tests import synthetic


def roster(name: str) -> dict[str, dict[str, str]]:
    with (synthetic.folder() / name).open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert tuple(found[0]) == allowances.COLUMNS and len({row["tjsj"] for row in found}) == 1
    return {row["dbzh"]: row for row in found}


def test_rosters_differ_by_what_the_truth_says() -> None:
    first, second = roster(allowances.FILE), roster(allowances.NEXT_FILE)
    known = {row["number"]: row for row in synthetic.truth("allowances")}
    assert set(first) == {number for number, row in known.items() if str(row["first_month"]) == allowances.MONTH}
    assert set(second) == {number for number, row in known.items() if row["last_month"] is None}
    gone, new = set(first) - set(second), set(second) - set(first)
    assert gone and new and len(gone | new) < 0.2 * len(first)
    for number, row in known.items():
        if number in first:
            assert int(first[number]["bzrs"]) == row["persons"]
        if number in second:
            assert int(second[number]["bzrs"]) == row["persons_next"]
            assert row["holder"] == f"cn.ric:{second[number]['sfzh']}"
    assert {row["file"] for row in synthetic.certificates(allowances.MATERIAL)} == {allowances.FILE}


def test_persons_are_the_household() -> None:
    sizes: dict[str, int] = {}
    heads = {}
    for row in synthetic.truth("people"):
        sizes[row["household"]] = sizes.get(row["household"], 0) + 1
        heads[f"cn.ric:{row['identifier']}"] = row
    rows = synthetic.truth("allowances")
    assert 0.015 * len(sizes) < len(rows) < 0.03 * len(sizes)
    for row in rows:
        assert heads[row["holder"]]["relation"] == "户主"
        assert row["persons"] == sizes[heads[row["holder"]]["household"]]
