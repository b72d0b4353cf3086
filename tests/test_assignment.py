"""mappings/assignment.py: which column is which field, when names and values agree, and when they do not."""

from __future__ import annotations

import pyarrow as pa
import pytest

from mappings import assignment, model, profile

PEOPLE = ["310115199503078015", "310101198506150024", "310230197012310035"] * 4


def of(columns: dict[str, list[str | None]], entity: str) -> dict[str, str]:
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    return {
        field: column.name for field, column in assignment.assigned(model.load(entity), profile.profiles(table)).items()
    }


def test_values_can_refuse_what_a_name_suggests() -> None:
    found = of({"有效期至": ["不详"] * 12, "身份证号": [f"A{n}" for n in range(12)]}, "residence-permit")
    assert "valid_to" not in found and "holder.holder" not in found


@pytest.mark.parametrize(
    ("mother", "father"), [("mqzjhm", "fqzjhm"), ("母亲证件号码", "父亲证件号码"), ("mother_id", "father_id")]
)
def test_of_several_holders_a_column_says_whose_it_is(mother: str, father: str) -> None:
    found = of({father: PEOPLE, mother: PEOPLE[::-1]}, "birth-certificate")
    assert (found["holder.mother"], found["holder.father"]) == (mother, father)


def test_a_column_that_says_nothing_is_not_given_to_one_of_two() -> None:
    found = of({"zjhm1": PEOPLE, "zjhm2": PEOPLE}, "birth-certificate")
    assert not {"holder.mother", "holder.father"} & set(found)


def test_the_last_one_left_is_taken() -> None:
    found = of({"nf_sfzh": PEOPLE, "x": PEOPLE[::-1]}, "marriage-certificate")
    assert (found["holder.spouse_a"], found["holder.spouse_b"]) == ("nf_sfzh", "x")


def test_the_envelope_comes_first_and_an_attribute_of_the_same_name_shares() -> None:
    found = of({"登记日期": [f"2020-01-{n:02}" for n in range(1, 13)]}, "marriage-certificate")
    assert found["issued_on"] == found["attributes.registered_on"] == "登记日期"


def test_no_columns_no_fields() -> None:
    assert of({}, "marriage-certificate") == {}


def test_the_kind_beside_a_number_is_the_one_that_begins_alike() -> None:
    table = pa.table({name: pa.array(["01"] * 12) for name in ("mqzjlx", "fqzjlx", "zt")})
    kinds = profile.profiles(table)
    (number,) = profile.profiles(pa.table({"fqzjhm": PEOPLE}))
    found = assignment.kinds_of(number, kinds)
    assert found is not None and found.name == "fqzjlx"
    assert assignment.kinds_of(number, kinds[2:]) is None
