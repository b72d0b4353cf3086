"""Proposes checks of a source's own from what a sample shows: what is always filled, which words there are, whose region.

All of them ``warn``: a sample says what is usual, not what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from mappings.inference import Proposal
from mappings.model import Material
from mappings.profile import Profile
from mappings.transforms import label
from quality.suite import NOT_NULL, Check, Suite

ALWAYS = 0.99  # filled
HOME = 0.9  # of the regions begin with the province's two digits
MIN_ROWS = 10  # fewer say nothing


def checks(
    material: Material, suite: Suite, proposal: Proposal, profiles: Sequence[Profile], region: str
) -> tuple[Check, ...]:
    """Checks on top of the entity's ``suite``; ``region`` is the source's own (6 digits)."""
    known = {profile.name: profile for profile in profiles}
    required = {check.column for check in suite.checks if check.name == NOT_NULL}
    found = []
    for line in proposal.lines:
        profile = known.get(line.source)
        if profile is None or profile.rows < MIN_ROWS:
            continue
        name = label(line.field)
        if line.field == "region" and line.transform == "region" and profile.prefix == region[:2]:
            found.append(_warn("match_regex", line.field, "region-of-another-province", regex=f"^{region[:2]}"))
        optional = line.field.startswith("attributes.") and line.field not in required
        if optional and profile.filled >= ALWAYS and material.columns()[line.field] != "money":
            found.append(_warn("not_be_null", line.field, f"{name}-missing"))
        if _words(material, line.field, line.transform, profile):
            found.append(_warn("be_in_set", line.field, f"{name}-unexpected", value_set=sorted(profile.values)))
    return tuple(found)


def _words(material: Material, field: str, transform: str, profile: Profile) -> bool:
    """A handful of words that are nobody's own."""
    attribute = material.attributes.get(field.removeprefix("attributes."))
    general = attribute is not None and attribute.type == "string" and attribute.sensitivity == "general"
    return general and transform == "text" and bool(profile.values)


def _warn(expectation: str, column: str, reason: str, **arguments: object) -> Check:
    named = {"expect": f"expect_column_values_to_{expectation}", "column": column, "severity": "warn", "reason": reason}
    return Check.model_validate({**named, **arguments})


def written(entity: str, found: Sequence[Check]) -> str:
    """The text of checks.yml, one check a line."""
    lines = [f"# On top of quality/suites/{entity}.yml; proposed from a sample. 根据样例建议，请核对。"]
    lines.append("checks:" if found else "checks: []")
    lines += [f"  - {_flow({**check.model_dump(exclude_none=True)})}" for check in found]
    lines.append("batch: {max_bad_share: 0.5}  # more bad rows than this halt the batch 坏行占比上限")
    return "\n".join(lines) + "\n"


def _flow(value: object) -> str:
    text = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, sort_keys=False, width=1 << 20)
    return text.strip()
