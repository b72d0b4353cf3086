"""A hub that lies: it has its keys, is a peer and under agreements, and says what is not so.

Told: messages that it sends by itself. Given: what its listener answers, to whoever asks. Each lie has codes under which it
must be refused, by whom it is told to, and stand in that hub's ledger.
"""

from __future__ import annotations

from dataclasses import dataclass

FALSE = "f" * 30 + "00"  # a handle of nothing; every certificate that is made up is called so


@dataclass(frozen=True)
class Lie:
    """``codes``: any of them is the right refusal. ``during``: of one that is given, what the other hub does to hear it.
    ``noted``: the message itself is answered, the lie in it is noted."""

    codes: tuple[str, ...]
    during: str = ""
    noted: bool = False


TOLD = {
    "altered-body": Lie(("message-altered",)),
    "altered-envelope": Lie(("message-signature", "message-malformed")),
    "foreign-key": Lie(("message-signature",)),
    "other-sender": Lie(("certificate-foreign",)),
    "other-receiver": Lie(("message-foreign",)),
    "same-id": Lie(("message-repeated",)),
    "replayed": Lie(("message-repeated",)),
    "old": Lie(("message-stale",)),
    "agreement-forged": Lie(("agreement-signature",)),
    "agreement-of-others": Lie(("agreement-foreign",)),
    "agreement-unheard": Lie(("agreement-unknown",)),
    "agreement-accepted-forged": Lie(("agreement-own", "agreement-signature", "agreement-accepted")),
    "evidence-beyond": Lie(("holding-unknown",)),
    "evidence-fields": Lie(("field-not-agreed",)),
    "evidence-purpose": Lie(("purpose-not-agreed",)),
    "correction-of-nothing": Lie(("correction-record-unknown", "reconcile-epoch")),
    "answer-of-nothing": Lie(("correction-unknown",)),
    "card-of-another": Lie(("card-foreign",)),
    "card-forged": Lie(("card-signature",)),
    "head-false": Lie(("checkpoint-false",), noted=True),
    "head-back": Lie(("checkpoint-contradicts",), noted=True),
    "restated-beyond": Lie(("agreement-unknown", "reconcile-epoch", "message-body")),
}
GIVEN = {
    "page-altered": Lie(("message-altered",), "read"),
    "page-signature": Lie(("message-signature",), "read"),
    "page-replayed": Lie(("reply-foreign",), "read"),
    "page-form": Lie(("index-page-form",), "read"),
    "page-order": Lie(("index-page-order",), "read"),
    "page-head-back": Lie(("index-page-order", "index-head-back"), "read"),
    "page-beyond": Lie(("index-page-foreign",), "read"),
    "page-beyond-agreement": Lie(("index-page-beyond",), "read"),
    "page-epoch-back": Lie(("index-epoch-back", "index-page-foreign"), "read"),
    "page-of-another-region": Lie(("index-page-beyond",), "read"),
    "digests-false": Lie((), "reconcile"),
    "digests-moved": Lie(("reconcile-moved",), "reconcile"),
    "digests-malformed": Lie(("reconcile-answer", "message-body"), "reconcile"),
    "restated-false": Lie(("reconcile-answer", "index-page-form", "index-page-foreign"), "heal"),
    "evidence-of-another": Lie(("partner-reply",), "evidence"),
    "evidence-altered": Lie(("partner-reply", "message-altered"), "evidence"),
    "reply-stale": Lie(("message-stale",), "read"),
}
