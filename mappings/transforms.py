"""Named column transforms: raw string columns in, columns of the exchange model out. Vectorised, no row loops.

A transform never raises for a value. What it cannot read becomes null and a note: ``flag`` informs, ``error``
quarantines the row, ``reject`` rejects it. Note codes name field and problem, never the value.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mappings import amounts, cleaning, codes, dates, identifiers, regions, schemes
from mappings.arrow import TYPES
from mappings.model import STATUSES, Material, ValueType

# What sources write for "nothing": compared after trimming, so a field of blanks is nothing too.
NULLS = ("", "N/A", "n/a", "-", "--", "\\n", "\\N", "NULL", "null")
# The end of a validity: an unreadable one must not pass for "no end", nor is "no end" a problem there.
END = "valid_to"
SERIAL = "serial"  # parameter of dates out of a spreadsheet: a bare number counts days

Mask = NDArray[np.bool_]
Severity = Literal["flag", "error", "reject"]


@dataclass(frozen=True)
class Note:
    """``code`` holds for the rows of ``mask``."""

    severity: Severity
    code: str
    mask: Mask


@dataclass(frozen=True)
class Call:
    """One line of mapping.csv at work on one block. ``inputs``: trimmed strings, "nothing" already null."""

    target: str
    inputs: tuple[pa.Array, ...]
    parameter: str | None
    region: str  # the source's own
    material: Material
    folder: Path | None = None  # the source's, where its own code lists are


@dataclass
class Result:
    """The model columns a transform fills, each as long as the block, and what it had to say."""

    columns: dict[str, pa.Array]
    notes: list[Note] = field(default_factory=list)

    def note(self, severity: Severity, code: str, mask: pa.Array | pa.ChunkedArray | Mask) -> None:
        rows = mask if isinstance(mask, np.ndarray) else pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
        if rows.any():
            self.notes.append(Note(severity, code, rows.astype(bool, copy=False)))

    def problems(self, prefix: str, problem: pa.Array, topic: str) -> None:
        """A flag for every distinct code in ``problem`` (strings, null = fine); ``topic`` gives way to ``prefix``."""
        for code in pc.unique(problem.drop_null()).to_pylist():  # a handful of distinct codes, not rows
            self.note("flag", prefix + code.removeprefix(topic), pc.equal(problem, code))


@dataclass(frozen=True)
class Transform:
    """``kind``: the one type it yields, or None when its target is a holder (scheme and value)."""

    apply: Callable[[Call], Result]
    kind: ValueType | None
    parameter: Literal["none", "optional", "code list", "scheme"] = "none"
    inputs: int | None = 1  # None: any number


def label(target: str) -> str:
    """How notes name a field: ``attributes.registered_capital`` is ``registered-capital``."""
    return target.rpartition(".")[2].replace("_", "-")


def cleaned(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Trimmed strings with every spelling of "nothing" as null; one contiguous array."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # a table without rows keeps no chunk to combine
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    return cleaning.without(cleaning.stripped(array.cast(pa.string())), _nulls())


@functools.cache
def _nulls() -> pa.Array:
    return pa.array(NULLS)


def _text(call: Call) -> Result:
    """Text as it is; several columns are joined in their order, empty ones left out."""
    if len(call.inputs) == 1:
        return Result({call.target: call.inputs[0]})
    # not null_handling="skip": with pyarrow 26 that loses rows where every column is null
    joined = pc.binary_join_element_wise(*call.inputs, "", null_handling="replace", null_replacement="")
    return Result({call.target: pc.if_else(pc.equal(joined, ""), pa.scalar(None, pa.string()), joined)})


def _words(call: Call) -> Result:
    """Text that must be words: what holds a digit slipped in from another column."""
    (values,) = call.inputs
    wrong = pc.match_substring_regex(values, r"\d")
    result = Result({call.target: pc.if_else(wrong, pa.scalar(None, pa.string()), values)})
    result.note("flag", f"{label(call.target)}-unreadable", wrong)
    return result


def _first(call: Call) -> Result:
    """The first column that has something."""
    return Result({call.target: pc.coalesce(*call.inputs)})


def _number_text(call: Call) -> Result:
    """A number printed on a certificate, folded as identifiers are: half width, upper case, nothing in between.

    One that names the certificate and was cut by a spreadsheet to its first digits names many: the row is rejected.
    """
    (values,) = call.inputs
    folded, plain = cleaning.compact(pc.fill_null(values, "") if values.null_count else values)
    result = Result({call.target: pc.if_else(pc.equal(folded, ""), pa.scalar(None, pa.string()), folded)})
    if call.target in call.material.natural_key:
        odd = np.flatnonzero(~plain)  # a decimal point or a plus sign is what gives it away
        lost = np.zeros(len(folded), dtype=bool)
        lost[odd] = pc.match_substring_regex(folded.take(pa.array(odd)), schemes.SCIENTIFIC)
        result.note("reject", f"{label(call.target)}-unrecoverable", lost)
    return result


def _date(call: Call) -> Result:
    (values,) = call.inputs
    days, problem = dates.date(values, serial=call.parameter == SERIAL)
    result = Result({call.target: days})
    if call.target == END:
        result.note("error", f"{END}:unreadable", pc.equal(problem, "date-unreadable"))
    else:
        result.problems(f"{label(call.target)}-", problem, topic="date-")
    return result


def _timestamp(call: Call) -> Result:
    (values,) = call.inputs
    moments, problem = dates.timestamp(values, serial=call.parameter == SERIAL)
    result = Result({call.target: moments})
    result.problems(f"{label(call.target)}-", problem, topic="date-")
    return result


def _amount(call: Call) -> Result:
    (values,) = call.inputs
    money, problem = amounts.amount(values)
    result = Result({call.target: money})
    result.problems(f"{label(call.target)}-", problem, topic="amount-")
    return result


def _number(pattern: str, kind: ValueType) -> Callable[[Call], Result]:
    """Plain numbers; anything else is null and flagged. Bounded so that the cast cannot overflow."""

    def apply(call: Call) -> Result:
        (values,) = call.inputs
        plain = pc.replace_substring(values, ",", "")
        good = pc.match_substring_regex(plain, pattern)
        numbers = pc.if_else(good, plain, pa.scalar(None, pa.string())).cast(TYPES[kind])
        result = Result({call.target: numbers})
        result.note("flag", f"{label(call.target)}-unreadable", pc.invert(good))
        return result

    return apply


def _looked_up(values: pa.Array, name: str, folder: Path | None) -> tuple[pa.Array, pa.Array]:
    """Meaning by code list, and which values are in it not."""
    known = codes.read(name, folder)
    place = pc.index_in(values, value_set=pa.array(list(known), pa.string()))
    found = pa.array(list(known.values()), pa.string()).take(place)
    return found, pc.and_(pc.is_valid(values), pc.is_null(place))


def _code(call: Call) -> Result:
    """A code in the words of the model; a code the list lacks is null and flagged."""
    (values,) = call.inputs
    found, unlisted = _looked_up(values, call.parameter or "", call.folder)
    result = Result({call.target: found})
    result.note("flag", f"{label(call.target)}-unlisted", unlisted)
    return result


def _boolean(call: Call) -> Result:
    (values,) = call.inputs
    truth = pc.is_in(values, value_set=pa.array(["1", "是", "Y", "true"]))
    falsehood = pc.is_in(values, value_set=pa.array(["0", "否", "N", "false"]))
    known = pc.or_(truth, falsehood)
    result = Result({call.target: pc.if_else(known, truth, pa.scalar(None, pa.bool_()))})
    result.note("flag", f"{label(call.target)}-unreadable", pc.and_(pc.is_valid(values), pc.invert(known)))
    return result


def _status(call: Call) -> Result:
    """A status we do not know decides whether a certificate counts: the row is quarantined, not guessed."""
    (values,) = call.inputs
    found, unlisted = (
        _looked_up(values, call.parameter, call.folder) if call.parameter else (values, _unknown_status(values))
    )
    result = Result({call.target: pc.if_else(unlisted, pa.scalar(None, pa.string()), found)})
    result.note("error", "status:unlisted", unlisted)
    return result


def _unknown_status(values: pa.Array) -> pa.Array:
    return pc.and_(pc.is_valid(values), pc.invert(pc.is_in(values, value_set=pa.array(STATUSES))))


def _region(call: Call) -> Result:
    """First six digits of a division code, or (``region:organisation``) of an organisation's identifier.

    Kept whatever the list says of it: real registers carry development zones and codes of former counties. Where there
    is none, the source's own region.
    """
    (values,) = call.inputs
    encoded = values.dictionary_encode()
    plain = pc.utf8_upper(pc.utf8_normalize(encoded.dictionary, form="NFKC"))
    if call.parameter == "organisation":
        found = _captured(plain, r"^[0-9A-Z]{2}(?P<code>\d{6})[0-9A-Z]{10}$")
        found = pc.coalesce(found, _captured(plain, r"^(?P<code>\d{6})[0-9A-Z]{7,9}$"))
    else:
        found = _captured(plain, r"^(?P<code>\d{6})(?:\d{3}|\d{6})?$")
    statuses, _ = regions.tables()
    standing = statuses[pc.fill_null(found.cast(pa.int32()), 0).to_numpy(zero_copy_only=False)]
    present = found.is_valid().to_numpy(zero_copy_only=False)
    result = Result({call.target: pc.fill_null(pc.fill_null(found, call.region).take(encoded.indices), call.region)})

    def note(problem: str, distinct: Mask) -> None:
        if distinct.any():
            result.note("flag", f"{label(call.target)}-{problem}", pa.array(distinct).take(encoded.indices))

    for status in ("retired", "unlisted"):
        note(status, present & (standing == regions.STATUSES.index(status)))
    if call.parameter != "organisation":
        note("unreadable", ~present)
    return result


def _captured(values: pa.Array, pattern: str) -> pa.Array:
    return pc.struct_field(pc.extract_regex(values, pattern=pattern), "code")


def _identified(call: Call, judged: pa.Table, silent: str = "") -> Result:
    """Scheme and value of a holder. ``judged``: scheme, normalised, verdict, reason (codes joined with ``;``).

    Flags that begin with ``silent`` are left out.
    """
    scheme, value, verdict, reason = (
        judged.column(name).combine_chunks() for name in ("scheme", "normalised", "verdict", "reason")
    )
    role = call.material.holders[call.target.removeprefix("holder.")]
    (given,) = call.inputs
    result = Result({f"{call.target}.scheme": scheme, f"{call.target}.value": value})
    present = given.is_valid()
    invalid = pc.and_(present, pc.equal(verdict, "invalid"))
    foreign = pc.and_(
        pc.and_(present, pc.invert(invalid)), pc.invert(pc.is_in(scheme, value_set=pa.array(role.schemes)))
    )
    if not role.optional:
        result.note("error", f"{call.target}:missing", pc.invert(present))
    result.note("error", f"{call.target}:scheme-not-accepted", foreign)
    for text in pc.unique(reason.drop_null()).to_pylist():  # distinct reasons, not rows
        rows = pc.equal(reason, text)
        for code in text.split(";"):
            if not (silent and code.startswith(silent)):
                result.note("flag", f"{call.target}:{code}", pc.and_(rows, pc.equal(verdict, "flagged")))
            bad = pc.and_(rows, invalid)
            result.note("reject" if code == "unrecoverable" else "error", f"{call.target}:{code}", bad)
    # An absent identifier is no scheme either, whatever scheme was asked for.
    nothing = pa.scalar(None, pa.string())
    result.columns = {name: pc.if_else(present, array, nothing) for name, array in result.columns.items()}
    return result


def _person(call: Call) -> Result:
    if len(call.inputs) == 2:
        call, schemes, notes = _by_type(call)
        return _noted(_identified(call, identifiers.check(call.inputs[0], schemes)), notes)
    (values,) = call.inputs
    return _identified(call, identifiers.check(values, call.parameter or "cn.ric"))


def _organisation(call: Call) -> Result:
    notes: list[Note] = []
    if typed := len(call.inputs) == 2:
        call, _, notes = _by_type(call)
    (values,) = call.inputs
    by_form = typed or not call.parameter  # a column of credit codes holds old registration numbers too
    judged = identifiers.check_organisation(values) if by_form else identifiers.check(values, call.parameter)
    # What the list says of an organisation's region is told once, by the transform `region`.
    return _noted(_identified(call, judged, silent="region-"), notes)


def _by_type(call: Call) -> tuple[Call, pa.Array, list[Note]]:
    """Number and kind of number, in two columns, as the number alone and its scheme (n,) by the code list named.

    A number of a kind that only another role of the material takes is not this role's: an owner is a person or an
    organisation. A number without a kind, or of a kind not listed, is not guessed at.
    """
    values, kinds = call.inputs
    schemes, unlisted = _looked_up(kinds, call.parameter or "", call.folder)
    here = call.target.removeprefix("holder.")
    roles = call.material.holders
    elsewhere = {scheme for name, role in roles.items() if name != here for scheme in role.schemes}
    foreign = pc.is_in(schemes, value_set=pa.array(sorted(elsewhere - set(roles[here].schemes)), pa.string()))
    values = pc.if_else(foreign, pa.scalar(None, pa.string()), values)
    result = Result({})
    result.note("error", f"{call.target}:type-unlisted", pc.and_(values.is_valid(), unlisted))
    result.note("error", f"{call.target}:type-missing", pc.and_(values.is_valid(), kinds.is_null()))
    return replace(call, inputs=(values,)), schemes, result.notes


def _noted(result: Result, notes: list[Note]) -> Result:
    return Result(result.columns, [*notes, *result.notes])


REGISTRY: dict[str, Transform] = {
    "text": Transform(_text, "string", inputs=None),
    "number": Transform(_number_text, "string"),
    "words": Transform(_words, "string"),
    "first": Transform(_first, "string", inputs=None),
    "code": Transform(_code, "string", parameter="code list"),
    "status": Transform(_status, "string", parameter="optional"),
    "region": Transform(_region, "string", parameter="optional"),
    "date": Transform(_date, "date", parameter="optional"),
    "timestamp": Transform(_timestamp, "timestamp", parameter="optional"),
    "amount": Transform(_amount, "money"),
    "integer": Transform(_number(r"^-?\d{1,18}$", "integer"), "integer"),
    "decimal": Transform(_number(r"^-?\d{1,15}(\.\d{1,4})?$", "decimal"), "decimal"),
    "boolean": Transform(_boolean, "boolean"),
    # with a second column, the kind of number, the parameter is the code list of kinds
    "person": Transform(_person, None, parameter="scheme", inputs=None),
    "organisation": Transform(_organisation, None, parameter="scheme", inputs=None),
}
