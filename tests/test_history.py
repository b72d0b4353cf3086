"""demo/history.py: who is whom, under which numbers and names, from when to when."""

from __future__ import annotations

from collections import defaultdict

import pyarrow as pa
from stdnum.cn import ric, uscc

from mappings import identifiers
from tests import synthetic


def test_every_identifier_is_valid_and_belongs_to_one_subject() -> None:
    links = synthetic.truth("links")
    owners = defaultdict(set)
    for link in links:
        owners[link["scheme"], link["value"]].add(link["subject"])
    assert {len(subjects) for subjects in owners.values()} == {1}
    judged = identifiers.check(
        pa.array([link["written"] for link in links]), pa.array([link["scheme"] for link in links])
    )
    assert set(judged["verdict"].to_pylist()) <= {"valid", "flagged"}
    assert judged["scheme"].to_pylist() == [link["scheme"] for link in links]
    assert judged["normalised"].to_pylist() == [link["value"] for link in links]


def test_generations_follow_each_other() -> None:
    by_subject = defaultdict(list)
    for link in synthetic.truth("links"):
        by_subject[link["subject"]].append(link)
    chains = [links for links in by_subject.values() if len(links) > 1]
    changed = set()
    for links in chains:
        old, new = sorted(links, key=lambda link: link["valid_to"] is None)
        assert old["valid_to"] < new["valid_from"] and new["valid_to"] is None
        assert (new["valid_from"] - old["valid_to"]).days == 1
        changed.add((old["scheme"], len(old["written"]), new["scheme"], len(new["written"])))
    assert changed >= {
        ("cn.ric", 15, "cn.ric", 18),
        ("passport", 9, "passport", 9),
        ("passport", 9, "cn.permit", 18),
        ("passport", 9, "cn.fpr", 18),
        ("cn.fpr", 15, "cn.fpr", 18),
        ("cn.regno", 15, "cn.uscc", 18),
    }


def test_old_and_new_numbers_are_of_one_person_or_company() -> None:
    people = {f"person:{row['person']}": row for row in synthetic.truth("people")}
    seen = set()
    for link in synthetic.truth("links"):
        if link["scheme"] == "cn.ric":
            seen.add(len(link["written"]))
            assert link["value"] == people[link["subject"]]["identifier"]
            if len(link["written"]) == 15:
                assert link["written"] == link["value"][:6] + link["value"][8:17] and link["value"][6:8] == "19"
                assert ric.calc_check_digit(link["value"]) == link["value"][-1]
        if link["scheme"] == "cn.uscc":
            assert uscc.is_valid(link["value"])
    assert seen == {15, 18}


def test_names_change_on_a_day_and_end_in_the_name_of_today() -> None:
    people = {f"person:{row['person']}": row for row in synthetic.truth("people")}
    by_subject = defaultdict(list)
    for row in synthetic.truth("names"):
        by_subject[row["subject"]].append(row)
    assert len(by_subject) > 0.01 * len(people)
    for subject, names in by_subject.items():
        old, new = sorted(names, key=lambda row: row["valid_from"])
        assert new["name"] == people[subject]["name"] != old["name"] and new["valid_to"] is None
        assert old["valid_from"] == people[subject]["born_on"] and (new["valid_from"] - old["valid_to"]).days == 1


def test_contradictions_name_rows_that_contradict() -> None:
    people = {f"person:{row['person']}": row for row in synthetic.truth("people")}
    of = {f"cn.ric:{row['identifier']}": subject for subject, row in people.items()}
    records = synthetic.records("ga/*.jsonl") | synthetic.records("hrss/*/*.gz")
    kinds = defaultdict(int)
    for row in synthetic.truth("contradictions"):
        kinds[row["kind"]] += 1
        if row["kind"].startswith("link-"):  # tests/test_links.py
            continue
        record = records.get((row["file"], row["row"]))
        bearer, value = people[of[row["identifier"]]], row["identifier"].partition(":")[2]
        if row["kind"] in ("birth-date", "sex"):
            column, truth = ("csrq", str(bearer["born_on"])) if row["kind"] == "birth-date" else ("xb", bearer["sex"])
            assert record is not None and row["says"].endswith(record[column]) and record[column] != truth
        if row["kind"] == "shared-identifier":
            assert row["other"] == of[row["identifier"]] != row["subject"]
            if record is not None and record["zjhm"] == value:
                assert record["xm"] == row["says"].removeprefix("name=")
    assert set(kinds) >= {"birth-date", "sex", "shared-identifier"}
    assert all(count < 0.01 * len(people) for count in kinds.values())


def test_certificates_are_held_under_a_number_of_their_subject() -> None:
    known = synthetic.identifiers()
    borrowed = {(row["file"], row["row"]) for row in synthetic.truth("contradictions") if row["other"]}
    seen = 0
    for row in synthetic.truth("certificates"):
        assert len(row["holders"]) == len(row["subjects"]) > 0
        for holder, subject in zip(row["holders"], row["subjects"], strict=True):
            seen += 1
            if row["material"] == "identity-link" and (row["file"], row["row"]) in borrowed:
                continue  # one of the two numbers is somebody else's: tests/test_links.py
            assert (holder in known[subject]) != ((row["file"], row["row"]) in borrowed)
    assert seen > 30_000


def test_one_person_is_spread_over_departments_and_provinces() -> None:
    places = defaultdict(set)
    for row in synthetic.truth("certificates"):
        for subject in row["subjects"]:
            places[subject].add(row["file"].rpartition("/")[0])
    people = [files for subject, files in places.items() if subject.startswith("person:")]
    assert sum(len(files) >= 4 for files in people) > 0.3 * len(people)
    assert any({"ga-zj", "hrss/zj", "hrss/sh"} <= files for files in people)
    assert any({"nhc/certificates", "mnr", "moe"} <= files for files in people)
    assert {"hrss/sh", "mnr"} <= set.union(
        *(files for subject, files in places.items() if subject.startswith("overseas:"))
    )
    represented = {
        f"person:{row['representative']}" for row in synthetic.truth("companies") if row["province"] == "江苏"
    }
    assert any("ga-zj" in places[subject] or "hrss/zj" in places[subject] for subject in represented)
