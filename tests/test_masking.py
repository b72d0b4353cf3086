"""hub/masking.py: nobody is left in a sample, and what the sample is there to show is."""

from __future__ import annotations

import pyarrow as pa
import pytest

from hub import masking
from mappings import identifiers, inference, model, profile
from tests import licences

PEOPLE = [
    "310115199503078015", "310104620927690", "310115199503078013", "3.10E+17", "830000199001010012", "E12345678",
    "31010119850615002X", "310101198506150024", "31011519950307801",
]  # fmt: skip


def number(values: list[str], kind: masking.Kind = "person-number") -> list[str]:
    table = pa.table({"x": pa.array(values, pa.string())})
    return list(masking.masked(table, {"x": kind}).column("x").to_pylist())


def judged(values: list[str], *, organisation: bool = False) -> list[tuple[str | None, str, str | None]]:
    given = pa.array(values, pa.string())
    found = (identifiers.check_organisation(given) if organisation else identifiers.check(given)).to_pylist()
    return [
        (
            row["scheme"],
            row["verdict"] == "invalid",
            (row["reason"] or "").split(";")[0] if row["verdict"] == "invalid" else None,
        )
        for row in found
    ]  # type: ignore[misc]


def test_an_identifier_keeps_scheme_validity_length_region_and_sex() -> None:
    new = number(PEOPLE)
    assert judged(new) == judged(PEOPLE)
    assert [len(value) for value in new] == [len(value) for value in PEOPLE]
    for old, masked in zip(PEOPLE, new, strict=True):
        assert (old == masked) == (old == "3.10E+17"), "nothing of a number is left in that one"
    for place in (0, 7):
        old, masked = PEOPLE[place], new[place]
        assert masked[:10] == old[:10] and masked[10:14] == "0101" and int(masked[16]) % 2 == int(old[16]) % 2


def test_organisations_keep_form_and_region() -> None:
    old = [licences.credit_code(1), licences.credit_code(2)[:-1] + "?", "310115000012345", licences.credit_code(1)]
    new = number(old, "organisation-number")
    assert judged([new[0], new[2]], organisation=True) == judged([old[0], old[2]], organisation=True)
    assert new[0] == new[3] != old[0] and new[0][2:8] == old[0][2:8]


def test_one_value_has_one_mask_in_every_column_of_its_kind() -> None:
    table = pa.table({"a": ["示例赵", "示例钱", None], "b": ["示例钱", "-", "示例赵"]})
    new = masking.masked(table, {"a": "person", "b": "person"}).to_pydict()
    assert new["a"][0] == new["b"][2] and new["a"][1] == new["b"][0] and len({*new["a"][:2]}) == 2
    assert new["a"][2] is None and new["b"][1] == "-", "nothing stays nothing"


def test_dates_texts_and_names_keep_their_shape() -> None:
    assert number(["1995-03-07", "19950307", "1995年3月7日", "不详"], "birthday") == ["1995-01-01", "19950101", "1995年1月1日", "不详"]  # fmt: skip
    assert number(["J310115-2015-000123"], "text") == ["J000000-0000-000001"]
    assert number(["上海某某有限公司"], "organisation") == ["示例甲子有限公司"]
    assert "某" not in "".join(number(["某某路5号", "某某"], "text"))
    assert len(set(number([f"J{n:03}" for n in range(200)], "text"))) == 200


def test_many_stay_different_and_valid() -> None:
    import numpy as np

    from mappings import checksums

    bodies = [f"3101151995{month:02}{day:02}{n:03}" for month in range(1, 13) for day in range(1, 13) for n in (1, 2)]
    checks = checksums.mod_11_2(np.frombuffer("".join(bodies).encode(), np.uint8).reshape(-1, 17))
    new = number([body + chr(check) for body, check in zip(bodies, checks, strict=True)])
    assert len(set(new)) == len(bodies)
    assert set(identifiers.check(pa.array(new), "cn.ric")["verdict"].to_pylist()) <= {"valid", "flagged"}


@pytest.fixture
def births() -> tuple[dict[str, masking.Kind], pa.Table]:
    rows = 12
    table = pa.table({
        "cszbh": [f"K3100{n:04}" for n in range(rows)], "xsexm": [f"示例{chr(0x4e00 + n)}" for n in range(rows)],
        "mqxm": [f"示例{chr(0x4e20 + n)}" for n in range(rows)], "mqzjhm": PEOPLE[:1] * rows, "csrq": ["2020-05-06"] * rows,
        "jgmc": ["上海示例医院"] * rows, "xzqh": ["310115"] * rows, "zt": ["有效", "作废"] * 6, "qfrq": ["2020-05-08"] * rows,
        "lxdh": [f"1380000{n:04}" for n in range(rows)], "beizhu": [f"住院号{n} 示例女士" for n in range(rows)],
    })  # fmt: skip
    material = model.load("birth-certificate")
    profiles = profile.profiles(table)
    return masking.kinds(material, inference.propose(material, profiles, "310000"), profiles), table


def test_what_is_masked_follows_the_mapping(births: tuple[dict[str, masking.Kind], pa.Table]) -> None:
    kinds, _ = births
    assert kinds["xsexm"] == kinds["mqxm"] == "person" and kinds["csrq"] == "birthday" and kinds["cszbh"] == "text"
    assert kinds["mqzjhm"] == "person-number"
    assert not {"jgmc", "xzqh", "zt", "qfrq"} & set(kinds), "whose hospital and which day of issue is nobody's own"


def test_what_nobody_recognised_is_masked(births: tuple[dict[str, masking.Kind], pa.Table]) -> None:
    kinds, table = births
    new = masking.masked(table, kinds)
    assert {"lxdh", "beizhu"} <= set(kinds)
    assert not {*table["lxdh"].to_pylist(), *table["beizhu"].to_pylist()} & {
        *new["lxdh"].to_pylist(),
        *new["beizhu"].to_pylist(),
    }
