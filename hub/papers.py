"""What is asked for, paper by paper: a material, whose, and of which province where only one will do.

The same paper is asked for once over all items that are asked about together; papers of two people are two, and so are those of two
provinces. Where one of whichever province will do for one requirement, and another asks for that of a certain province, that one
is asked for, in whatever order they come. Who somebody is goes by the keyed hash, whatever an item calls them; in what is kept, by their role in the item.
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

    Whoever is asked for the paper of one province, before or here, is not asked for one of whichever as well: it stands in its place.
    """
    seen = {one for each in before for one in (each, anywhere(each))}
    found: dict[Paper, Use] = {}
    certain: dict[Paper, Paper] = {}
    for use in uses:
        paper = Paper(use.material, people.get(use.holder, use.holder), use.region)
        if paper not in seen:
            found.setdefault(paper, use)
            if paper.region is not None:
                certain.setdefault(anywhere(paper), paper)
    if certain:
        placed = dict.fromkeys(certain.get(paper, paper) for paper in found)
        return {paper: found[paper] for paper in placed}
    return found


def anywhere(paper: Paper) -> Paper:
    """The paper of whichever province that ``paper`` will do for."""
    return paper if paper.region is None else paper._replace(region=None)


def instead(uses: Iterable[Use], people: Mapping[str, bytes | str], others: Iterable[Iterable[Use]]) -> list[Paper]:
    """Papers of certain provinces that ``others`` want, and that will do for those of whichever province that ``uses`` want."""
    general = {Paper(use.material, people.get(use.holder, use.holder), None) for use in uses if use.region is None}
    theirs = (
        Paper(use.material, people.get(use.holder, use.holder), use.region)
        for other in others for use in other if use.region is not None
    )  # fmt: skip
    return list(dict.fromkeys(paper for paper in theirs if anywhere(paper) in general))


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
