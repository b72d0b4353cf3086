"""The receiver's side of an epoch: its key is asked of the provider, over the same mutual TLS as all that is exchanged."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import msgspec

from connectors.errors import FatalError
from hub.exchange import caller
from hub.exchange.agreements import Agreement
from hub.exchange.epochs import KIND, Epoch, Scope
from hub.home import KEY_BYTES


class _Told(msgspec.Struct, frozen=True):
    epoch: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z.:_+-]{1,80}\Z")]
    key: Annotated[str, msgspec.Meta(max_length=100)]
    materials: tuple[str, ...]
    regions: tuple[str, ...]


def ask(agreement: Agreement, seconds: float = 30.0) -> Epoch:
    """The epoch the provider is in. Errors of :func:`hub.exchange.caller.ask`; FatalError ``index-key-form`` when it tells no
    key, or a scope beyond what is agreed."""
    reply = caller.ask(agreement.peer, KIND, {}, agreement=agreement, seconds=seconds)
    told = caller.decoded(reply, _Told)
    try:
        key = base64.urlsafe_b64decode(told.key + "=" * (-len(told.key) % 4))
    except (binascii.Error, ValueError):
        key = b""
    beyond = set(told.materials) - set(agreement.materials("index"))
    if len(key) != KEY_BYTES or beyond or not all(each.startswith(agreement.terms.regions) for each in told.regions):
        with caller.judged(reply):
            raise FatalError("index-key-form", peer=agreement.peer)
    return Epoch(told.epoch, key, Scope(told.materials, told.regions))
