"""Every kind of message that this hub answers: one table for the receiver and for who asks."""

from __future__ import annotations

from hub.exchange.service import KINDS, Kind


def register() -> dict[str, Kind]:
    """Fill the table, once a process; it is returned."""
    if not KINDS:
        from hub.exchange import (
            agreement_messages,
            correction_messages,
            evidence,
            index_messages,
            peer_messages,
            reconciliation_messages,
            witnesses,
        )

        KINDS.update(peer_messages.KINDS)
        KINDS.update(agreement_messages.KINDS)
        KINDS.update(evidence.KINDS)
        KINDS.update(index_messages.KINDS)
        KINDS.update(reconciliation_messages.KINDS)
        KINDS.update(correction_messages.KINDS)
        KINDS[witnesses.KIND] = Kind(witnesses.handle, needs_agreement=False)
    return KINDS
