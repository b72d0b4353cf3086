"""Deliberate defects, switched on with ``--defect`` in every process of every hub: what the rig must catch, so that its silence
means something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _replace(owner: Any, name: str, value: object) -> None:
    """AttributeError where there is no such thing any more: a defect that changes nothing would prove nothing."""
    getattr(owner, name)
    setattr(owner, name, value)


def replay_unchecked() -> None:
    """Whatever comes is carried out, however often."""
    from hub.exchange import service

    _replace(service, "_first", lambda *given: None)


def reply_unkept() -> None:
    """A message is carried out once, and what was replied is not kept for who missed it."""
    from hub.exchange import service

    record = service._record
    _replace(service, "_record", lambda *given: record(*given[:5]))  # the sixth is the reply to be kept


def refusals_unrecorded() -> None:
    """What is refused is replied to and not recorded."""
    from hub.exchange import service

    def unrecorded(engine: Any, message: Any, error: Any, *_: Any) -> bytes:
        from hub import problems

        return service._problem(message, problems.code_of(error), error, None).wire

    _replace(service, "_refused", unrecorded)


def cursor_before_merge() -> None:
    """The position in a partner's feed moves as soon as its pages are fetched."""
    from bench.faults import defects

    defects.cursor_before_merge()


def digest_unchecked() -> None:
    """The envelope is verified, the body is taken as it is."""
    from connectors.envelope import Message

    _replace(Message, "intact", property(lambda self: True))


def agreement_unverified() -> None:
    """An agreement counts whoever signed it."""
    from hub.exchange import agreements

    _replace(agreements, "verify", lambda *given: None)


def region_unchecked() -> None:
    """Others may announce whatever they like, wherever it is, and may have whatever is held."""
    import re

    from connectors import indexpages
    from hub import index_entries
    from hub.exchange import evidence

    _replace(indexpages, "prefix", lambda region: "")
    _replace(index_entries, "_OWN", "SELECT '' FROM source WHERE name = :source")
    everywhere = re.compile(
        r"EXISTS \(SELECT FROM unnest\(CAST\(:regions AS text\[\]\)\) AS r WHERE starts_with\(.*?, r\)\)"
    )
    for name in ("_ANY", "_NAMED"):
        found = getattr(evidence, name)
        found.text = everywhere.sub("CAST(:regions AS text[]) IS NOT NULL", found.text)


DEFECTS: dict[str, Callable[[], None]] = {
    "agreement-unverified": agreement_unverified,
    "cursor-before-merge": cursor_before_merge,
    "digest-unchecked": digest_unchecked,
    "refusals-unrecorded": refusals_unrecorded,
    "region-unchecked": region_unchecked,
    "replay-unchecked": replay_unchecked,
    "reply-unkept": reply_unkept,
}
