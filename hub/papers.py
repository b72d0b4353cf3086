"""What is asked for, paper by paper: a material, whose, and of which province where only one will do.

The same paper is asked for once over all items that are asked about together; papers of two people are two, and so are those of two
provinces. Who somebody is goes by the keyed hash, whatever an item calls them; in what is kept, by their role in the item.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mappings.items import Use


class Paper(NamedTuple):
    """``person``: a keyed hash, or what else tells people apart. ``region``: two digits; None: of whichever province."""

    material: str
    person: bytes | str
    region: str | None


def new(uses: Iterable[Use], people: Mapping[str, bytes | str], before: Iterable[Paper]) -> dict[Paper, Use]:
    """The papers of ``uses``, each once, less those asked for ``before``; ``people``: keyed hash, by role of the item.

    Whoever was asked for the paper of one province is not asked for one of whichever as well.
    """
    seen = {one for each in before for one in (each, each._replace(region=None))}
    found = {}
    for use in uses:
        paper = Paper(use.material, people.get(use.holder, use.holder), use.region)
        if paper not in seen:
            found[paper] = use
            seen |= {paper, paper._replace(region=None)}
    return found


def codes(papers: Iterable[Paper]) -> list[str]:
    """Their materials, each once."""
    return list(dict.fromkeys(paper.material for paper in papers))


def written(papers: Iterable[Paper], people: Mapping[str, bytes | str]) -> list[str]:
    """As they are kept with an answer: material, role, region. Of several roles of one person it is the first."""
    roles: dict[bytes | str, str] = {}
    for role, person in people.items():
        roles.setdefault(person, role)
    return [" ".join(filter(None, (one.material, roles[one.person], one.region))) for one in papers]


def read(kept: Sequence[str], people: Mapping[str, bytes | str]) -> list[Paper]:
    """What :func:`written` wrote; ``people``: keyed hash, by role of the item. Nobody else matters to it."""
    found = []
    for text in kept:
        material, *rest = text.split(" ")
        if rest:  # of before papers were told apart there are codes of materials alone
            found.append(Paper(material, people.get(rest[0], rest[0]), rest[1] if len(rest) > 1 else None))
    return found
