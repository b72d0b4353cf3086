"""Deliberate defects of answers, switched on with ``--defect``: what the oracle must catch, so that its silence means something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace


def ignores_validity_left() -> None:
    """A certificate that ends tomorrow serves where a month must be left."""
    from hub import findings

    judge = findings.Evidence._judge
    findings.Evidence._judge = lambda self, use, holding: judge(  # type: ignore[method-assign]
        self, use.model_copy(update={"valid_left": use.valid_left * 0}), holding
    )


def ignores_roles() -> None:
    """Whatever the spouse has to show, the applicant's own will do."""
    from hub import answers
    from mappings.items import APPLICANT

    complete = answers.complete
    answers.complete = lambda asked, subjects, *given: complete(  # type: ignore[assignment]
        asked, dict.fromkeys(subjects, subjects[APPLICANT]), *given
    )


def ignores_lateness() -> None:
    """Nothing is ever behind its promise."""
    from hub.holdings import Freshness

    Freshness.late = lambda self, now: False  # type: ignore[method-assign]


def takes_parts_for_the_whole() -> None:
    """Who tells of a part of a province would know of all of it."""
    from hub.holdings import Freshness

    Freshness.whole = property(lambda self: True)  # type: ignore[method-assign, assignment]


def ignores_regions() -> None:
    """A certificate of any province will do."""
    from hub import findings

    concerns = findings.Evidence._concerns
    findings.Evidence._concerns = lambda self, holding, use, party, others: concerns(  # type: ignore[method-assign]
        self, holding, use.model_copy(update={"region": None}), party, others
    )


def ignores_whom_else() -> None:
    """The applicant's own marriage will do, whoever is named as the spouse."""
    from hub import findings

    concerns = findings.Evidence._concerns
    findings.Evidence._concerns = lambda self, holding, use, party, others: concerns(  # type: ignore[method-assign]
        self, holding, use, party, ()
    )


def ignores_contradictions() -> None:
    """Whoever a number belongs to, what is held under it counts."""
    from hub import knowledge

    subject = knowledge.Gathered.subject
    knowledge.Gathered.subject = lambda self, digest: replace(  # type: ignore[method-assign]
        subject(self, digest), undecided=False
    )


def asks_again() -> None:
    """Each item asks for what it wants, whatever was asked for already."""
    from hub import answers

    complete = answers.complete
    answers.complete = lambda asked, *given: [  # type: ignore[assignment]
        one for case in asked.cases for one in complete(replace(asked, cases=(case,)), *given)
    ]


def asks_for_what_is_held() -> None:
    """Where one paper of an option lacks, all of it is asked for."""
    from hub import resolver

    lacking = resolver._lacking
    resolver._lacking = lambda requirement, option, findings: {
        **lacking(requirement, option, findings), "lacking": tuple(one.use for one in findings if one.state != "role"),
    }  # fmt: skip


def takes_people_for_one() -> None:
    """What one person was asked for, another who has to show the same is not."""
    from hub import papers

    new = papers.new
    papers.new = lambda uses, people, before: new(uses, dict.fromkeys(people, next(iter(people.values()))), before)


DEFECTS: dict[str, Callable[[], None]] = {
    "asked-again": asks_again,
    "contradictions": ignores_contradictions,
    "halves": asks_for_what_is_held,
    "lateness": ignores_lateness,
    "parts": takes_parts_for_the_whole,
    "people": takes_people_for_one,
    "regions": ignores_regions,
    "roles": ignores_roles,
    "together": ignores_whom_else,
    "validity-left": ignores_validity_left,
}
