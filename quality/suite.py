"""Suites: what is expected of every row of an entity, and on top of that of one source.

``quality/suites/<entity>.yml`` holds the entity's checks, ``checks.yml`` of a source folder more of them; the model
itself adds what follows from it (natural key, status, schemes). Only expectations that judge single rows can be used:
a check that fails as a whole could not say which row to quarantine. Great Expectations is not imported here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from connectors import indexpages
from connectors.documents import Strict
from connectors.documents import load as load_document
from connectors.errors import FatalError
from connectors.source import Source
from mappings import engine
from mappings.model import STATUSES, Material

SUITES = Path(__file__).parent / "suites"

# Row-wise expectations of Great Expectations with the arguments they take here.
NOT_NULL = "expect_column_values_to_not_be_null"
EXPECTATIONS: dict[str, frozenset[str]] = {
    NOT_NULL: frozenset(),
    "expect_column_values_to_be_null": frozenset(),
    "expect_column_values_to_be_in_set": frozenset({"value_set"}),
    "expect_column_values_to_not_be_in_set": frozenset({"value_set"}),
    "expect_column_values_to_match_regex": frozenset({"regex"}),
    "expect_column_values_to_not_match_regex": frozenset({"regex"}),
    "expect_column_values_to_match_regex_list": frozenset({"regex_list", "match_on"}),
    "expect_column_value_lengths_to_be_between": frozenset({"min_value", "max_value"}),
    "expect_column_value_lengths_to_equal": frozenset({"value"}),
    "expect_column_values_to_be_between": frozenset({"min_value", "max_value", "strict_min", "strict_max"}),
    "expect_column_values_to_be_unique": frozenset(),
    "expect_column_pair_values_a_to_be_greater_than_b": frozenset({"or_equal", "ignore_row_if"}),
    "expect_column_pair_values_to_be_equal": frozenset({"ignore_row_if"}),
}
TODAY = "today"  # as min_value or max_value: the day of the run

Reason = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=80)]


def snake(name: str) -> str:
    """``ExpectColumnValuesToBeInSet`` as ``expect_column_values_to_be_in_set``; snake case stays as it is."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class Check(Strict):
    """One expectation about rows. ``fail`` quarantines, ``warn`` flags; ``reason`` is what the row then carries.

    Arguments of the expectation stand beside the named keys; a pair names ``column_a`` and ``column_b``.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    expect: str
    column: str | None = None
    column_a: str | None = None
    column_b: str | None = None
    severity: Literal["fail", "warn"]
    reason: Reason

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.name not in EXPECTATIONS:
            raise ValueError(f"unknown or not row-wise expectation {self.expect}; known: {', '.join(EXPECTATIONS)}")
        if unknown := sorted(set(self.arguments) - EXPECTATIONS[self.name]):
            raise ValueError(f"{self.expect} takes no argument {', '.join(unknown)}")
        pair = self.column_a is not None and self.column_b is not None
        if ("pair" in self.name) != pair or pair == (self.column is not None):
            raise ValueError("name `column`, or for a pair `column_a` and `column_b`")
        for pattern in (self.arguments.get("regex"), *(self.arguments.get("regex_list") or ())):
            if pattern is not None:
                _compiled(pattern)
        return self

    @property
    def name(self) -> str:
        """The expectation in snake case."""
        return snake(self.expect)

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    def columns(self) -> tuple[str, ...]:
        """The columns it looks at."""
        return tuple(column for column in (self.column, self.column_a, self.column_b) if column)


class BatchChecks(Strict):
    """Bounds of the whole batch. ``max_bad_share``: how much of it may be quarantined or rejected; ``max_flag_share``: on how
    much of what was mapped a flag may stand, by flag; ``max_withdrawn_share``: how much of what is known a snapshot may
    lack. They count from ``min_rows`` rows on."""

    max_bad_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_withdrawn_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    max_flag_share: dict[Reason, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)
    min_rows: Annotated[int, Field(ge=1)] = 20


class _Document(Strict):
    checks: tuple[Check, ...] = ()
    batch: BatchChecks = BatchChecks()


@dataclass(frozen=True)
class Suite:
    """All checks of one source, the entity's first. Every one fits the entity's columns."""

    entity: str
    checks: tuple[Check, ...]
    batch: BatchChecks
    natural_key: tuple[str, ...] = ()

    def columns(self) -> tuple[str, ...]:
        """Every column some check looks at, each once."""
        return tuple(dict.fromkeys(column for check in self.checks for column in check.columns()))

    def sources(self, check: Check) -> tuple[str, ...]:
        """The columns of the model a check depends on: of the natural key, those it is made of."""
        columns = check.columns()
        return self.natural_key if "natural_key" in columns else columns

    def digest(self) -> str:
        """SHA-256 over the checks of rows; batch bounds decide nothing about a row."""
        content = [check.model_dump(mode="json") for check in self.checks]
        return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def load(source: Source) -> Suite:
    """The suite of ``source``, validated before any data. FatalError ``suite-invalid`` names file and reason."""
    material = engine.material_of(source)
    found = of(material, source.checks_path)
    if material.kind != "index":
        return found
    # A partner hub's word counts for its own region alone, whatever the folder of its source says.
    own = Check.model_validate(
        {"expect": "expect_column_values_to_match_regex", "column": "region", "severity": "fail",
         "reason": "region-of-another-province", "regex": f"^{indexpages.prefix(source.region)}"}
    )  # fmt: skip
    return replace(found, checks=(*found.checks, own))


def of(material: Material, more: Path | None = None) -> Suite:
    """The suite of an entity, with the checks of the file ``more`` on top, if there is one."""
    paths = [SUITES / f"{material.code}.yml", *([more] if more else [])]
    documents = [(path, load_document(path, _Document, "suite-invalid")) for path in paths if path.is_file()]
    known = checkable(material)
    for path, document in documents:
        for place, check in enumerate(document.checks):
            if unknown := [column for column in check.columns() if column not in known]:
                reason = f"checks.{place}: {material.code} has no column {', '.join(unknown)}"
                raise FatalError("suite-invalid", file=str(path), reason=reason)
    written = [check for _, document in documents for check in document.checks]
    checks = (*_derived(material, written), *written)
    batch = documents[-1][1].batch if documents else BatchChecks()
    return Suite(material.code, checks, batch, material.natural_key)


def checkable(material: Material) -> tuple[str, ...]:
    """Columns a check may name: those of the exchange table, of money its two parts, and the natural key."""
    columns: list[str] = ["natural_key"]
    for name, kind in material.columns().items():
        columns += [f"{name}.amount", f"{name}.currency"] if kind == "money" else [name]
    return tuple(columns)


def contract_digest(source: Source) -> str:
    """The whole contract: how a row is mapped (:func:`mappings.engine.contract_digest`) and how it is judged."""
    parts = f"{engine.contract_digest(source)}\0{load(source).digest()}"
    return hashlib.sha256(parts.encode()).hexdigest()


def _derived(material: Material, written: Sequence[Check]) -> tuple[Check, ...]:
    """What the model alone demands of every row, beyond the checks that are ``written`` down."""

    def check(expect: str, column: str, reason: str, **arguments: Any) -> Check:
        return Check.model_validate(
            {"expect": expect, "column": column, "severity": "fail", "reason": reason, **arguments}
        )

    checks = []
    if material.kind != "index":  # what a partner hub announces says it in words of its own
        checks = [
            check(NOT_NULL, "status", "status-missing"),
            check("expect_column_values_to_be_in_set", "status", "status-unknown", value_set=list(STATUSES)),
        ]
    filled = {one.column for one in written if one.name == NOT_NULL and one.severity == "fail"}
    if not filled.issuperset(material.natural_key):
        checks.append(check(NOT_NULL, "natural_key", "natural-key-missing"))
    for name, role in material.holders.items():
        scheme = f"holder.{name}.scheme"
        reason = f"{name.replace('_', '-')}-scheme"
        checks.append(check("expect_column_values_to_be_in_set", scheme, reason, value_set=list(role.schemes)))
    return tuple(checks)


def _compiled(pattern: object) -> None:
    try:
        re.compile(str(pattern))
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
