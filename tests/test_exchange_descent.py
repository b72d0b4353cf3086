"""hub/exchange/descent.py: exactly the records that differ, whatever is equal; few questions, small answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from hub.exchange import descent
from hub.exchange.descent import HANDLE, LISTED, RECORDS, WITHIN, Asked, Found, Part, Parts, descend

Records = Mapping[str, str]  # handle -> digest


def parts(records: Records, asked: Asked) -> Parts:
    """As the statements in hub/exchange/record_digests.py answer."""
    prefixes = (*asked.within, *asked.listed)
    depth = len(prefixes[0])
    assert {len(prefix) for prefix in prefixes} == {depth}
    sums: dict[str, tuple[int, int, int]] = {}
    for handle, digest in records.items():
        prefix = handle[:depth]
        if prefix in asked.listed:
            key = handle
        elif prefix in asked.within:
            key = handle[: depth + 2]
        else:
            continue
        count, one, other = sums.get(key, (0, 0, 0))
        sums[key] = (
            count + 1,
            (one + int(digest[:16], 16)) % 2**64,
            (other + int(digest[16:], 16)) % 2**64,
        )
    return {key: Part(count, f"{one:016x}{other:016x}") for key, (count, one, other) in sums.items()}


class Sides:
    """What is compared, and what was asked."""

    def __init__(self, here: Records, there: Records) -> None:
        self.here, self.there = here, there
        self.asked: list[Asked] = []
        self.answered = 0

    def compare(self, asked: Asked) -> tuple[Parts, Parts]:
        self.asked.append(asked)
        assert len(asked.within) <= WITHIN
        here, there = parts(self.here, asked), parts(self.there, asked)
        assert sum(len(key) == HANDLE for key in there) <= RECORDS
        self.answered += len(there)
        return here, there

    def found(self, most: int = 10_000) -> Found:
        return descend(self.compare, most)


def named(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:HANDLE]


def made(count: int) -> dict[str, str]:
    return {named(number): named(-number - 1) for number in range(count)}


def covered(records: Records) -> dict[str, str]:
    """Each digest with its handle in it."""
    return {
        handle: hashlib.sha256((handle + digest).encode()).hexdigest()[:HANDLE] for handle, digest in records.items()
    }


def due(here: Records, there: Records) -> tuple[list[str], list[str], list[str]]:
    return (
        sorted(there.keys() - here.keys()),
        sorted(here.keys() - there.keys()),
        sorted(handle for handle in here.keys() & there.keys() if here[handle] != there[handle]),
    )


def told(found: Found) -> tuple[list[str], list[str], list[str]]:
    return sorted(found.missing_here), sorted(found.missing_there), sorted(found.differing)


# Handles that share long prefixes, as random ones hardly ever do, and digests that may be swapped between them.
handles = st.builds(
    lambda lead, rest: (lead + rest)[:HANDLE].ljust(HANDLE, "0"),
    st.sampled_from(["", "ab", "abcd", "abcdef0123456789"]),
    st.text("0f", min_size=0, max_size=HANDLE),
)
digests = st.sampled_from([named(number) for number in range(4)])


@given(
    st.dictionaries(handles, digests, max_size=60),
    st.dictionaries(handles, st.none() | digests, max_size=20),
    st.integers(1, 5),
)
@settings(max_examples=150)
def test_random_sets_with_random_differences(
    there: dict[str, str], changes: dict[str, str | None], listed: int
) -> None:
    here = covered({handle: digest for handle, digest in {**there, **changes}.items() if digest is not None})
    there = covered(there)
    with mock.patch.object(descent, "LISTED", listed):
        found = Sides(here, there).found()
    assert told(found) == due(here, there)
    assert (found.here, found.there, found.whole) == (len(here), len(there), True)


@given(st.integers(0, 3000), st.sets(st.integers(0, 3100), max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_random_handles(count: int, touched: set[int], random: object) -> None:
    here, there = made(count), made(count)
    for number in touched:
        fate = random.randrange(3)  # type: ignore[attr-defined]
        if fate == 0:
            here.pop(named(number), None)
        elif fate == 1:
            there.pop(named(number), None)
        else:
            here[named(number)] = named(number + 10_000)
    assert told(Sides(here, there).found()) == due(here, there)


def test_two_digests_changed_places() -> None:
    """As sums they would be the same in every part that holds both."""
    there = {"ab" + "0" * 30: named(1), "ab" + "0" * 29 + "1": named(2)}
    here = dict(zip(there, reversed(there.values()), strict=True))
    assert Sides(here, there).found().count == 0, "so a record's digest covers its handle"
    assert len(Sides(covered(here), covered(there)).found().differing) == 2


def test_what_is_equal_costs_one_question() -> None:
    sides = Sides(made(20_000), made(20_000))
    found = sides.found()
    assert (found.count, found.here, len(sides.asked), sides.answered) == (0, 20_000, 1, 256)


def test_ten_of_many() -> None:
    here, there = made(100_000), made(100_000)
    for number in range(10):
        del here[named(number * 1000)]
    sides = Sides(here, there)
    assert sides.found().missing_here == sorted(there.keys() - here.keys())
    assert len(sides.asked) <= 3 and sides.answered < 256 + 10 * 256 + 10 * LISTED


def test_one_side_has_nothing() -> None:
    there = made(3000)
    assert sorted(Sides({}, there).found().missing_here) == sorted(there)
    assert sorted(Sides(there, {}).found().missing_there) == sorted(there)
    assert Sides({}, {}).found() == Found()


def test_where_nearly_all_differ_they_are_not_named() -> None:
    here = made(2000)
    sides = Sides(here, {handle: named(7) for handle in here})
    found = sides.found(most=500)
    assert not found.whole and found.least > 500 and (found.here, found.there) == (2000, 2000)
    assert sides.answered < 3000
