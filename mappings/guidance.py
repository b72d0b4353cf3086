"""What a guide 办事指南 says beside the requirements: time limits, steps, visits, exceptions, fee, channels, contact.

All of it is optional: what an authority has not published, the guide says is not published.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from connectors.documents import Filled, Strict, Text

Channel = Literal["window", "online", "kiosk", "mobile"]
WorkingDays = Annotated[int, Field(ge=0, le=1000)]


class Limits(Strict):
    """Time limits in working days: the one in law (办理时限 法定) and the shorter one promised (承诺). 0: at once 即办."""

    statutory: WorkingDays | None = None
    promised: WorkingDays | None = None

    @model_validator(mode="after")
    def _shorter(self) -> Self:
        if self.statutory is None and self.promised is None:
            raise ValueError("at least one of `statutory`, `promised`")
        if self.statutory is not None and self.promised is not None and self.promised > self.statutory:
            raise ValueError("`promised` is longer than `statutory`")
        return self


class Step(Strict):
    """One step of the process. ``body``: another body takes it; ``parallel`` 并联: at the same time as the step before."""

    name: Text
    who: Literal["applicant", "window", "authority"]
    at: Annotated[tuple[Channel, ...], Field(min_length=1)]
    days: WorkingDays | None = None
    body: Text | None = None
    parallel: bool = False


class PublishedException(Strict):
    """A published exception: to one visit at most 最多跑一次, or to acceptance before all is there 容缺受理."""

    to: Literal["one-visit", "deferral"]
    reason: Text


class Fee(Strict):
    """What it costs, in yuan; 0 is free. Nothing may be charged without a basis in law."""

    amount: Annotated[Decimal, Field(ge=0, decimal_places=2, max_digits=12)]
    basis: Text | None = None

    @model_validator(mode="after")
    def _based(self) -> Self:
        if self.amount > 0 and self.basis is None:
            raise ValueError("a fee needs its `basis`")
        return self


class Contact(Strict):
    """Where to go and whom to ring."""

    address: Text | None = None
    phone: Filled | None = None
    hours: Text | None = None


class Guidance(Strict):
    """What is published about how a matter is done; ``visits``: how often the applicant has to come (0: not at all)."""

    body: Text | None = None
    limits: Limits | None = None
    visits: Annotated[int, Field(ge=0, le=20)] | None = None
    steps: tuple[Step, ...] = ()
    exceptions: tuple[PublishedException, ...] = ()
    fee: Fee | None = None
    channels: tuple[Channel, ...] = ()
    contact: Contact | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.visits or 0) > 1 and not any(exception.to == "one-visit" for exception in self.exceptions):
            raise ValueError("more than one of `visits` needs a published exception to `one-visit`, with its reason")
        if self.steps and self.steps[0].parallel:
            raise ValueError("the first of `steps` has none before it to be `parallel` with")
        return self
