"""Who is whom by the rule, in another language and all at once; and what hypothesis says of people."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

from hypothesis import strategies as st

from hub import identity_claims
from tests.linked import Card, Said

A, B, C, D, E = (f"passport:{letter}1234567" for letter in "KLMNP")
BORN_1970, BORN_1980 = "cn.fpr:931840197001310015", "cn.permit:830000198005230130"  # a man, a man
NAMES = (A, B, C, D, E, BORN_1970, BORN_1980)
Decided = tuple[str, tuple[tuple[str, ...], ...]]  # merge and one group, or split and two


def expected(said: Iterable[Said], cards: Iterable[Card], decided: Iterable[Decided]) -> dict[str, frozenset[str]]:
    """The clusters that follow, computed from all at once by union of sets."""
    merges = [groups[0] for kind, groups in decided if kind == "merge"]
    splits = [groups for kind, groups in decided if kind == "split"]
    current = {one.key: one for one in sorted(said, key=lambda one: one.source)}  # both sources say one digest
    links = {one.key: one for one in current.values() if one.one != one.other}
    names = {n for one in links.values() for n in (one.one, one.other)} | {n for group in merges for n in group}
    names |= {n for sides in splits for side in sides for n in side} | {card.holder for card in cards}
    merged_by_person = {n for group in merges for n in group}

    def join(pairs: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
        whole = {name: {name} for name in names}
        for one, other in pairs:
            if whole[one] is not whole[other]:
                whole[one] |= whole[other]
                for name in whole[other]:
                    whole[name] = whole[one]
        return {name: frozenset(group) for name, group in whole.items()}

    merged = [pair for group in merges for pair in combinations(group, 2)]
    unit = join(merged)
    side_of = {
        name: {(n, s) for n, sides in enumerate(splits) for s in (0, 1) if unit[name] & set(sides[s])} for name in names
    }

    def apart(one: str, other: str) -> bool:
        return any((n, 1 - s) in side_of[other] for n, s in side_of[one])

    standing = {key: one for key, one in links.items() if not apart(one.one, one.other)}

    def claims(name: str, about: str, within: frozenset[str] = frozenset(NAMES)) -> set[str]:
        scheme, value = name.split(":", 1)
        own = identity_claims.form(scheme, value)[about]
        found = {
            getattr(o, about) for o in standing.values() if name in (o.one, o.other) and within >= {o.one, o.other}
        }
        found |= {getattr(card, about) for card in cards if card.holder == name}
        return {value for value in found | {own} if value}

    def contradictory(group: frozenset[str]) -> bool:
        for about in ("born_on", "sex"):
            accepted: dict[str, str] = {}
            for one in {unit[name] for name in group if name in merged_by_person}:
                inside = set().union(*(claims(name, about, one) for name in one))
                for value in inside:
                    accepted[value] = min(accepted.get(value, value), *inside)
            if len({accepted.get(value, value) for name in group for value in claims(name, about)}) > 1:
                return True
        return False

    def joined() -> dict[str, frozenset[str]]:
        return join([*merged, *((one.one, one.other) for one in standing.values())])

    def violated(group: frozenset[str]) -> bool:
        sides = set().union(*(side_of[name] for name in group))
        return any((n, 1 - s) in sides for n, s in sides) or (
            contradictory(group) and any(name in merged_by_person for name in group)
        )

    def signature(name: str) -> tuple[object, ...]:
        return (unit[name] if name in merged_by_person else None, frozenset(side_of[name]))

    groups = joined()
    bad = {group for group in set(groups.values()) if violated(group)}
    standing = {
        key: one
        for key, one in standing.items()
        if groups[one.one] not in bad or signature(one.one) == signature(one.other)
    }
    groups = joined()
    return {name: frozenset([name, "?"]) if contradictory(group) else group for name, group in groups.items()}


name = st.sampled_from(NAMES)
said = st.builds(
    Said,
    name,
    name,
    born_on=st.sampled_from([None, None, None, "1970-01-31", "1980-05-23"]),
    sex=st.sampled_from([None, None, "男", "女"]),
)
card = st.builds(
    Card,
    name,
    born_on=st.sampled_from([None, "1970-01-31", "1980-05-23"]),
    sex=st.sampled_from([None, "男", "女"]),
    number=st.sampled_from([0, 0, 1]),
)
