"""What an identifier says of its bearer itself, and which documents deny it: birth date and sex.

Digits 7 to 14 of the 18 are the birth date, an odd 17th is a man's (GB 11643, and permits and cards of the same form). Written
three times, for one identifier, for a block of mapped rows and in SQL; a test holds that they agree. What is not said, or is
neither of the two sexes, denies nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mappings import model
from mappings.model import Material

Mask = NDArray[np.bool_]

TELLING = ("cn.ric", "cn.permit", "cn.fpr")
LENGTH = 18
ODD = "13579"
SEXES = ("男", "女")


def form(scheme: str, value: str) -> dict[str, str | None]:
    """What a normalised identifier says itself: ``scheme``, ``born_on`` (yyyy-mm-dd), ``sex``; None where it does not."""
    if scheme not in TELLING or len(value) != LENGTH:
        return {"scheme": scheme, "born_on": None, "sex": None}
    sex = SEXES[0] if value[16] in ODD else SEXES[1]
    return {"scheme": scheme, "born_on": f"{value[6:10]}-{value[10:12]}-{value[12:14]}", "sex": sex}


def denying(material: Material, columns: Mapping[str, pa.Array], rows: int) -> Mask:
    """Which of ``rows`` mapped rows say of a holder what the identifier itself does not; ``columns`` as the engine makes
    them. Of a value without a form anything that is said counts: other documents may say otherwise."""
    found = np.zeros(rows, dtype=bool)
    born, sex = columns.get("attributes.born_on"), columns.get("attributes.sex")
    for role in material.claims:
        scheme, value = columns[f"holder.{role}.scheme"], columns[f"holder.{role}.value"]
        held = value.is_valid()
        tells = pc.and_(pc.is_in(scheme, pa.array(TELLING)), pc.equal(pc.utf8_length(value), LENGTH))
        if born is not None:
            digits = pc.replace_substring(born.cast(pa.string()), "-", "")
            same = pc.equal(pc.utf8_slice_codeunits(value, 6, 14), digits)
            found |= _true(pc.and_(held, born.is_valid())) & ~_true(pc.and_(tells, same))
        if sex is not None:
            odd = pc.is_in(pc.utf8_slice_codeunits(value, 16, 17), pa.array(list(ODD)))
            same = pc.equal(sex, pc.if_else(odd, *SEXES))
            found |= _true(pc.and_(held, pc.is_in(sex, pa.array(SEXES)))) & ~_true(pc.and_(tells, same))
    return found


def claiming() -> dict[str, list[str]]:
    """The materials whose documents say when somebody was born or of which sex, and the role they say it of; what SQL binds."""
    found = [(entity.code, role) for entity in model.all_materials() for role in entity.claims]
    return {"materials": [code for code, _ in found], "roles": [role for _, role in found]}


def own(scheme: str, value: str) -> tuple[str, str]:
    """SQL of the birth date and the sex that the normalised identifier in ``value`` says itself, null where it does not."""
    telling = f"{scheme} IN {TELLING} AND length({value}) = {LENGTH}"
    born_on = f"concat_ws('-', substr({value}, 7, 4), substr({value}, 11, 2), substr({value}, 13, 2))"
    sex = f"CASE WHEN substr({value}, 17, 1) IN {tuple(ODD)} THEN '{SEXES[0]}' ELSE '{SEXES[1]}' END"
    return f"CASE WHEN {telling} THEN {born_on} END", f"CASE WHEN {telling} THEN {sex} END"


def known_sex(sex: str) -> str:
    """SQL of the text in ``sex``, empty where it is neither of the two."""
    return f"CASE WHEN {sex} IN {SEXES} THEN {sex} ELSE '' END"


def beyond(own_born: str = "own_born", own_sex: str = "own_sex") -> str:
    """SQL condition on the columns ``born_on`` and ``sex``: they say what the identifier itself does not."""
    return f"coalesce(born_on, '') NOT IN ('', coalesce({own_born}, '')) OR coalesce(sex, '') NOT IN ('', coalesce({own_sex}, ''))"


def _true(values: pa.BooleanArray) -> Mask:
    found: Mask = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return found
