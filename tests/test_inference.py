"""mappings/inference.py: the proposal for our own samples is the mapping that people wrote, or leaves it open."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from connectors import reading
from connectors import source as sources
from connectors.landing import Landing
from connectors.source import Source
from mappings import engine, inference, mapping, model, profile


def propose(described: Source) -> inference.Proposal:
    (path,) = described.sample_path.glob("input.*")
    with tempfile.TemporaryDirectory() as folder:
        zone = Landing(folder)
        landed = zone.put(path.read_bytes(), path.name)
        table = pa.concat_tables([block.table for block in reading.blocks(described, landed, zone)])
    spreadsheet = getattr(described.options, "format", "") == "xlsx"
    return inference.propose(
        engine.material_of(described), profile.profiles(table), described.region, spreadsheet=spreadsheet
    )


def proposal_of(
    columns: dict[str, list[str | None]], entity: str = "residence-permit", **options: bool
) -> inference.Proposal:
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    return inference.propose(model.load(entity), profile.profiles(table), "310000", **options)


NAMED = (
    "sh-ga-residents",
    "sh-ga-households",
    "sh-mca-marriages",
    "sh-amr-enterprises",
    "sh-mnr-titles",
    "sh-nhc-births",
    "sh-moe-degrees",
    "sh-hrss-insurance",
    "sh-mca-allowances",
)


@pytest.mark.parametrize("name", NAMED)
def test_what_it_says_is_what_people_wrote(name: str) -> None:
    """Every line that maps a column fills a field from the same column as the mapping in use, or says TODO."""
    described = sources.load(name)
    written = {line.field: line.columns for line in engine.mapping_of(described).lines}
    proposal = propose(described)
    lines = [line for line in proposal.lines if line.field != "-" and not line.source.startswith("=")]
    right = [line for line in lines if tuple(line.source.split("|")) == written.get(line.field)]
    wrong = [line for line in lines if line not in right and "TODO" not in line.note]
    assert len(right) >= 0.8 * len(written.keys() - {"name", "issuer_name"}) - 2
    # A licence has no holder's name twice, a card carries its holder's number: none of ours is wrong.
    assert [line.field for line in wrong if line.field in written] == []
    assert set(proposal.row_key) == set(described.row_key)


def test_the_row_key_and_the_times_come_with_it() -> None:
    proposal = propose(sources.load("sh-ga-households"))
    assert (proposal.row_key, proposal.as_of, proposal.watermark) == (("hh", "gmsfhm"), "gxsj", "gxsj")
    licences = propose(sources.load("sh-amr-enterprises"))
    assert (licences.as_of, licences.watermark) == ("注册日期", None)


def test_a_number_with_its_kind_beside_it() -> None:
    lines = {line.field: line for line in propose(sources.load("sh-nhc-births")).lines}
    assert (lines["holder.mother"].source, lines["holder.mother"].transform) == ("mqzjhm|mqzjlx", "person:id-type")
    titles = {line.field: line for line in propose(sources.load("sh-mnr-titles")).lines}
    assert titles["holder.owner_person"].source == titles["holder.owner_organisation"].source
    assert titles["holder.owner_organisation"].transform == "organisation:id-type"
    assert titles["issued_on"].transform == "date:serial"


def test_unknown_codes_become_a_list_of_the_sources_own() -> None:
    proposal = proposal_of({"zt": ["A", "B", "有效"] * 5})
    assert dict(proposal.codelists["status"]) == {"A": "TODO", "B": "TODO", "有效": "in_force"}
    (line,) = [line for line in proposal.lines if line.field == "status"]
    assert line.transform == "status:status" and "TODO" in line.note


def test_a_known_status_needs_no_list_and_a_rare_unknown_one_stays_unknown() -> None:
    proposal = proposal_of({"zt": [*["有效", "注销"] * 10, "？"]})
    assert not proposal.codelists
    (line,) = [line for line in proposal.lines if line.field == "status"]
    assert line.transform.startswith("status:") and line.transform.endswith("-status")


def test_what_is_not_found_is_open() -> None:
    proposal = proposal_of({"memo": ["x", "x", "z"]})
    notes = {line.field: line for line in proposal.lines}
    assert notes["holder.holder"].source == "TODO" and notes["certificate_number"].source == "TODO"
    assert "TODO" in notes["-"].note and "TODO" in notes["status"].note
    assert "valid_to" in proposal.unfilled and proposal.row_key == ()


def test_no_value_of_a_person_enters_the_proposal() -> None:
    number, name, place = "310115199503078015", "示例甲乙", "上海市示例路7号"
    proposal = proposal_of({"sfzh": [number, "310101198506150024"], "xm": [name, "示例丙"], "jzdz": [place, "x"]})
    text = inference.written(proposal.lines) + str(proposal.codelists)
    assert not any(value in text for value in (number, name, place))


def test_the_text_is_a_mapping(tmp_path: Path) -> None:
    """What names all it needs is read by the mapping's own reader; what does not is refused with its line."""
    described = sources.load("sh-ga-residents")
    path = tmp_path / "mapping.csv"
    path.write_text(inference.written(propose(described).lines), encoding="utf-8")
    read = mapping.read(path, engine.material_of(described), described.options.columns)
    assert set(read.columns()) == set(described.options.columns)


def test_the_skeleton_names_every_field() -> None:
    material = model.load("birth-certificate")
    rows = list(csv.DictReader(inference.skeleton(material).splitlines()))
    fields = {row["field"] for row in rows}
    assert {"holder.mother", "holder.father.name", "valid_to", "attributes.born_on"} <= fields
    outputs = {
        part
        for row in rows
        for part in (
            [row["field"]]
            if row["field"] not in ("holder.mother", "holder.father", "holder.child")
            else [f"{row['field']}.scheme", f"{row['field']}.value"]
        )
    }
    assert outputs == set(material.columns())
    assert {row["from"] for row in rows} == {"TODO"} and inference.skeleton(None).count("\n") == 1
