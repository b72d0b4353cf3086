"""demo/links.py: rows that link the numbers of one subject, and the slips among them."""

from __future__ import annotations

import csv
from typing import Any

from demo import links
from tests import synthetic


def rows(name: str, form: Any) -> dict[tuple[str, int], dict[str, str]]:
    text = (synthetic.folder() / name).read_bytes().decode(form.encoding)
    return {(name, number): row for number, row in enumerate(csv.DictReader(text.splitlines()), start=2)}


def slips() -> dict[tuple[str, int], dict[str, Any]]:
    return {
        (row["file"], row["row"]): row for row in synthetic.truth("contradictions") if row["kind"].startswith("link-")
    }


def test_rows_link_numbers_of_one_subject() -> None:
    known, wrong = synthetic.identifiers(), slips()
    certified = synthetic.certificates(links.MATERIAL)
    clean = [row for row in certified if (row["file"], row["row"]) not in wrong]
    for row in clean:
        assert set(row["holders"]) <= known[row["subjects"][0]] and len(set(row["holders"])) == 2
    kinds = {tuple(holder.split(":")[0] for holder in row["holders"]) for row in clean}
    assert kinds >= {("passport", "passport"), ("passport", "cn.permit"), ("passport", "cn.fpr"), ("cn.fpr", "cn.fpr"),
                     ("cn.regno", "cn.uscc")}  # fmt: skip
    assert {row["file"] for row in certified} == {links.DOCUMENTS, links.CONVERSIONS}


def test_clean_rows_say_what_is_true() -> None:
    people = {f"overseas:{row['overseas']}": row for row in synthetic.truth("overseas")}
    documents = rows(links.DOCUMENTS, links.DOCUMENT_FORM)
    wrong, seen = slips(), 0
    for row in synthetic.certificates(links.MATERIAL):
        place = (row["file"], row["row"])
        if row["file"] != links.DOCUMENTS or row["dirt"] or place in wrong:
            continue
        written, person = documents[place], people[row["subjects"][0]]
        assert (written["csrq"], written["xb"], written["xm"]) == (
            str(person["born_on"]),
            person["sex"],
            person["name"],
        )
        assert [written["yzjhm"], written["xzjhm"]] == [holder.split(":")[1] for holder in row["holders"]]
        seen += 1
    assert seen > 80


def test_slips_can_be_found_out() -> None:
    """The number that came after says itself when its bearer was born, and that is not what the row says."""
    people = {f"overseas:{row['overseas']}": row for row in synthetic.truth("overseas")}
    owner = {f"{row['scheme']}:{row['value']}": row["subject"] for row in synthetic.truth("links")}
    found = slips()
    assert {row["kind"] for row in found.values()} == {"link-birth-date", "link-number"} and len(found) < 10
    for row in found.values():
        scheme, value = row["identifier"].split(":")
        bearer = people[owner[row["identifier"]]]
        assert scheme in ("cn.permit", "cn.fpr") and value[6:14] == f"{bearer['born_on']:%Y%m%d}"
        if row["kind"] == "link-number":
            assert owner[row["identifier"]] == row["other"] != row["subject"]
            assert people[row["subject"]]["born_on"] != bearer["born_on"]
        else:
            assert row["says"] != f"born_on={bearer['born_on']}" and row["other"] is None
