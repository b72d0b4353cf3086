"""What the values of one raw column look like: shares of identifiers, dates, codes, names; whole columns at a time.

Shares are of the values that say something. Nothing that could be a person's own stays in a profile: values are kept only
of a column that holds few different ones, each of them many times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mappings import amounts, codes, dates, identifiers, regions
from mappings.schemes import SCHEMES
from mappings.transforms import cleaned

FEW = 20  # different values, at most, of a column of codes
OFTEN = 3  # times that one of them occurs on the average, at least
SHORT = 20  # characters of a code, at most
CHECKED = (
    "cn.ric",
    "cn.permit",
    "cn.fpr",
    "cn.uscc",
    "cn.regno",
    "cn.orgcode",
    "cn.tax",
)  # a check character proves them

Share = Callable[[Any], float]

_PERSON = r"^[\x{4e00}-\x{9fff}]{2,4}$|^[\x{4e00}-\x{9fff}]{1,10}·[\x{4e00}-\x{9fff}·]{1,20}$"
_ORGANISATION = r"(公司|厂|店|合伙企业.*|中心|合作社|工作室|商行|经营部|事务所|医院|学校|大学|学院|局|厅|委员会)$"


@dataclass(frozen=True)
class Profile:
    """One column. ``filled`` is a share of ``rows``, every other share one of the values filled."""

    name: str
    rows: int
    filled: float
    distinct: int
    unique: bool
    schemes: dict[str, float] = field(default_factory=dict)  # valid identifiers, by scheme
    date: float = 0.0
    time: float = 0.0  # with a time of day
    region: float = 0.0
    prefix: str = ""  # the two digits most regions begin with
    amount: float = 0.0
    integer: float = 0.0
    decimal: float = 0.0
    boolean: float = 0.0
    person: float = 0.0
    organisation: float = 0.0
    codelists: dict[str, float] = field(default_factory=dict)  # values that a shared code list knows
    values: tuple[str, ...] = ()  # of a column of codes, the most frequent first

    def identifier(self, schemes: Iterable[str]) -> float:
        """Share of valid identifiers of these schemes."""
        return sum(self.schemes.get(scheme, 0.0) for scheme in schemes)


def profiles(table: pa.Table) -> tuple[Profile, ...]:
    """A profile of every column of raw strings; those that begin with ``_`` are the system's own."""
    lists = {path.stem: codes.read(path.stem) for path in sorted(codes.FOLDER.glob("*.csv")) if codes.exists(path.stem)}
    return tuple(_profile(name, table.column(name), lists) for name in table.column_names if not name.startswith("_"))


def _profile(name: str, column: pa.ChunkedArray, lists: dict[str, dict[str, str]]) -> Profile:
    everything = cleaned(column)
    values = everything.drop_null()
    rows, count = len(everything), len(values)
    counted = pc.value_counts(values)
    distinct = len(counted)
    if not count:
        return Profile(name, rows, 0.0, 0, unique=False)
    weights = pc.struct_field(counted, "counts").to_numpy().astype(np.float64)
    texts = pc.struct_field(counted, "values")  # every share below is taken over the distinct values, weighted

    def share(mask: pa.Array | np.ndarray) -> float:
        held = mask if isinstance(mask, np.ndarray) else pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
        return float(weights[held.astype(bool)].sum() / count)

    moments, _ = dates.timestamp(texts)
    days, problem = dates.date(texts)
    readable = pc.or_(days.is_valid(), pc.fill_null(pc.equal(problem, "long-term"), False))
    timed = pc.and_(moments.is_valid(), pc.match_substring_regex(texts, r"[0-9][ T][0-9]{1,2}[:时]|^[0-9]{14}$"))
    money, trouble = amounts.amount(texts)
    bodies = pc.match_substring_regex(texts, _ORGANISATION)
    found = pc.struct_field(pc.extract_regex(texts, r"^(?P<code>[0-9]{6})(?:[0-9]{3}|[0-9]{6})?$"), "code")
    listed, _ = regions.tables()
    known = listed[pc.fill_null(found.cast(pa.int32()), 0).to_numpy()] != regions.STATUSES.index("unlisted")
    return Profile(
        name=name,
        rows=rows,
        filled=count / rows,
        distinct=distinct,
        unique=distinct == rows,
        schemes=_schemes(texts, share),
        date=share(readable),
        time=share(timed),
        region=share(known),
        prefix=_prefix(found, weights, known),
        amount=share(pc.and_(money.is_valid(), trouble.is_null())),
        integer=share(pc.match_substring_regex(texts, r"^-?[0-9]{1,18}$")),
        decimal=share(pc.match_substring_regex(texts, r"^-?[0-9]{1,15}(\.[0-9]{1,4})?$")),
        boolean=share(pc.is_in(texts, value_set=pa.array(["1", "0", "是", "否", "Y", "N", "true", "false"]))),
        person=share(pc.and_not(pc.match_substring_regex(texts, _PERSON), bodies)),
        organisation=share(bodies),
        codelists=_codelists(texts, lists, share),
        values=_codes(texts, weights, rows),
    )


def _schemes(texts: pa.Array, share: Share) -> dict[str, float]:
    """Shares of valid identifiers; a credit-code column is read as the mapping would read it."""
    by_form, as_organisation = identifiers.check(texts), identifiers.check_organisation(texts)
    found = {}
    for scheme in SCHEMES:
        judged = as_organisation if scheme in ("cn.uscc", "cn.regno", "cn.orgcode") else by_form
        good = pc.and_(pc.equal(judged.column("scheme"), scheme), pc.not_equal(judged.column("verdict"), "invalid"))
        part = share(good.combine_chunks())
        if part:
            found[scheme] = part
    return found


def _prefix(found: pa.Array, weights: np.ndarray, known: np.ndarray) -> str:
    provinces = pc.utf8_slice_codeunits(pc.fill_null(found, "00"), 0, 2)
    numbers = provinces.cast(pa.int32()).to_numpy()
    sums = np.bincount(numbers[known], weights[known], minlength=1)
    return f"{int(sums.argmax()):02d}" if sums.any() else ""


def _codelists(texts: pa.Array, lists: dict[str, dict[str, str]], share: Share) -> dict[str, float]:
    found = {}
    for name, meaning in lists.items():
        part = share(pc.is_in(texts, value_set=pa.array(list(meaning), pa.string())))
        if part:
            found[name] = part
    return found


def _codes(texts: pa.Array, weights: np.ndarray, rows: int) -> tuple[str, ...]:
    """The values of a column of codes, the most frequent first; nothing of any other column."""
    longest = pc.max(pc.utf8_length(texts)).as_py()
    if len(texts) > min(FEW, max(rows // OFTEN, 2)) or weights.sum() < OFTEN * len(texts) or longest > SHORT:
        return ()
    return tuple(texts.take(pa.array(np.argsort(-weights, kind="stable"))).to_pylist())
