"""demo/insurance.py: gzipped JSON lines in several files, who is insured where, under which number and employer."""

from __future__ import annotations

import re
from collections import Counter

from demo import insurance
from tests import synthetic

COLUMNS = "sbkh xm zjlx zjhm dwmc dwxydm xzlx cbrq ljjfys cbzt cbd gxsj"
TYPES = {"01": "cn.ric", "02": "passport", "03": "cn.permit", "04": "cn.fpr"}


def test_records_have_the_columns_agreed() -> None:
    for place, region in (("sh", "31"), ("zj", "33")):
        files = sorted((synthetic.folder() / "hrss" / place).glob("insurance-*.jsonl.gz"))
        assert len(files) == 3
        found = list(synthetic.records(f"hrss/{place}/*.gz").values())
        assert {" ".join(record) for record in found} == {COLUMNS} and len(found) > 400
        assert all(isinstance(record["ljjfys"], int) and record["ljjfys"] >= 0 for record in found)
        assert {record["cbzt"] for record in found} == {"1", "2", "4"}
        assert {record["xzlx"] for record in found} == {"110", "310"}
        regions = Counter(record["cbd"][:2] for record in found)
        assert regions[region] > 0.99 * len(found)
        assert all(re.fullmatch(r"2025-\d\d-\d\d \d\d:\d\d:\d\d", record["gxsj"]) for record in found)
        assert len({record["sbkh"] for record in found}) > 0.99 * len(found)


def test_numbers_of_several_generations() -> None:
    held = [row for row in synthetic.certificates(insurance.MATERIAL) if row["dirt"] is None]
    records = synthetic.records("hrss/*/*.gz")
    lengths = Counter()
    for row in held:
        record = records[row["file"], row["row"]]
        scheme, _, value = row["holders"][0].partition(":")
        lengths[scheme, len(record["zjhm"])] += 1
        assert TYPES[record["zjlx"]] == scheme and record["sbkh"] == row["identifier"]
        assert record["zjhm"] == value or value[:6] + value[8:17] == record["zjhm"]
        assert record["cbrq"] == row["valid_from"].strftime("%Y%m%d")
    assert lengths["cn.ric", 15] > 100 < lengths["cn.ric", 18] and lengths["passport", 9] > 10
    assert lengths["cn.permit", 18] > 5 and lengths["cn.fpr", 15] + lengths["cn.fpr", 18] > 0


def test_employers_have_the_old_number_before_and_the_credit_code_after() -> None:
    links: dict[str, set[str]] = {}
    for link in synthetic.truth("links"):
        if link["subject"].startswith("company:"):
            links.setdefault(link["value"], set()).add(link["subject"])
    numbers = [record["dwxydm"] for record in synthetic.records("hrss/*/*.gz").values()]
    known = [number for number in numbers if number in links]
    assert len(known) > 0.97 * len([number for number in numbers if len(number) > 3])
    assert {len(number) for number in known} == {15, 18}
    subjects = {length: {s for n in known if len(n) == length for s in links[n]} for length in (15, 18)}
    assert subjects[15] & subjects[18], "no employer is named under both of its numbers"


def test_people_worked_in_zhejiang_before_shanghai() -> None:
    since: dict[str, dict[str, object]] = {}
    for row in synthetic.certificates(insurance.MATERIAL):
        since.setdefault(row["subjects"][0], {})[row["file"][:7]] = row
    both = [rows for rows in since.values() if len(rows) == 2]
    assert len(both) > 100
    for rows in both:
        there, here = rows["hrss/zj"], rows["hrss/sh"]
        assert there["valid_from"] < here["valid_from"]  # type: ignore[index]


def test_packed_files_have_no_name_and_no_time() -> None:
    raw = next((synthetic.folder() / "hrss/sh").glob("*.gz")).read_bytes()
    assert raw[:2] == b"\x1f\x8b" and raw[3] == 0 and raw[4:8] == bytes(4), "a name or a time inside"


def test_dirty_lines_are_no_records() -> None:
    records = synthetic.records("hrss/*/*.gz")
    notes = [row for row in synthetic.truth("dirt") if row["file"].startswith("hrss/")]
    assert {"html-error-page", "cut-short"} <= {row["kind"] for row in notes}
    for row in notes:
        assert ((row["file"], row["row"]) in records) != (row["kind"] in ("html-error-page", "cut-short"))
