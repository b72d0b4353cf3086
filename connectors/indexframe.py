"""The form of a page of an index feed (docs/protocol/25-index.md), as the hub that gives it and the one that reads it know it."""

from __future__ import annotations

from typing import Annotated

import msgspec

KIND, RESTATED = "index.page", "reconcile.records"  # kinds whose reply is a page: of the feed, and outside its order
MEDIA_TYPE = "application/vnd.yici.index+csv"
# The values of a line, in this order; `subjects` as `role:id role:id`.
ENTRY = ("handle", "material", "region", "status", "valid_from", "valid_to", "digest", "recorded_at", "position",
         "subjects")  # fmt: skip
STATUSES = ("in_force", "suspended", "revoked", "expired", "cancelled", "withdrawn")
SUBJECTS = r"\A[a-z][a-z0-9_]*:[0-9a-f]{32}( [a-z][a-z0-9_]*:[0-9a-f]{32})*\z"

Position = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Code = Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
Epoch = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z][0-9A-Za-z.:_+-]{0,79}\Z")]


class Frame(msgspec.Struct, frozen=True):
    """The first line of a page, JSON. Further members are for later versions and left alone.

    ``restated``: outside the order of the feed, what is announced now under handles that were named: no page to read on from.
    """

    epoch: Epoch
    after: Position
    to: Position
    head: Position
    more: bool
    materials: tuple[Code, ...]
    regions: tuple[Code, ...]
    restated: bool = False
