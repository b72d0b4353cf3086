"""One value at a time is judged as a column is."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mappings import identifiers, scalars, schemes

SEEDS = (
    "440524188001010014", "44011320141005001x", "150102880730303", "810000199408230021", "932682198501010017",
    "USA310073010112", "91350211M0000XUF46", "91310117MA1J3AJ43G", "913205056082348768", "321200000019530",
    "3205942100123", "320506NA000043X", "企合苏镇分字第2005", "粤深字00123号", "3.10E+17", "D2143569-X", "E12345678",
    "310101MA1J3AJ43", "44052418800101001412", "100000000000000", "91100000600037341L", "N2310115MF12345670", "",
)  # fmt: skip
CHARACTERS = "0123456789" * 3 + "XxAaMNEOIZz９Ａａ：:.+- －　\u00a0\u200b–'\"\n\t企字第号（)é٣"


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A known form with up to four characters put in, taken out or changed."""
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(text)))
        width = draw(st.integers(0, 1))
        text = text[:place] + draw(st.sampled_from((*CHARACTERS, ""))) + text[place + width :]
    return text


def both(values: list[str], scheme: str | None, organisation: bool) -> tuple[list[object], list[object]]:
    column = identifiers.check(pa.array(values, pa.string()), scheme, organisation_column=organisation).to_pylist()
    single = [scalars.check_organisation(value) if organisation else scalars.check(value, scheme) for value in values]
    return column, [
        {"scheme": it.scheme, "normalised": it.normalised, "verdict": it.verdict, "reason": it.reason} for it in single
    ]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(mutated(), st.text(max_size=25)), min_size=1, max_size=60))
def test_equal_to_the_column(values: list[str]) -> None:
    for scheme in (None, *schemes.SCHEMES):
        column, single = both(values, scheme, organisation=False)
        assert column == single, scheme
    column, single = both(values, None, organisation=True)
    assert column == single


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(schemes.SCHEMES), st.sampled_from((":", "：", " : ")), mutated())
def test_prefixes_are_read_alike(scheme: str, colon: str, value: str) -> None:
    text = scheme.upper() + colon + value
    given_schemes, bare = identifiers.split(pa.array([text]))
    column = identifiers.check(bare, given_schemes).to_pylist()[0]
    single = scalars.parse(text)
    assert (single.scheme, single.normalised, single.verdict) == (
        column["scheme"], column["normalised"], column["verdict"],
    )  # fmt: skip


def test_parse() -> None:
    found = scalars.parse("cn.uscc:91310117ma1j3aj43g")
    assert found == scalars.Identifier("cn.uscc", "91310117MA1J3AJ43G", "valid", None)
    assert "91310117" not in repr(found), "an identifier does not show in a log by accident"


def test_an_unknown_scheme() -> None:
    with pytest.raises(ValueError, match="known are cn"):
        scalars.check("1", "nonsense")
    assert scalars.parse("nonsense:1").reason == "scheme-unrecognised"


def test_needs_neither_arrow_nor_numpy() -> None:
    code = "import sys; from mappings import scalars; assert scalars.parse('440524188001010014').verdict == 'flagged'\n"
    code += "loaded = {'pyarrow', 'numpy', 'pandas'} & set(sys.modules); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code], check=True)
