"""Errors named for what the runner does next.

=================  =========  ==============================================================
class              exit code  what happens
=================  =========  ==============================================================
``FatalError``     1          stop; repeating will not help until somebody has acted
``RetriableError`` 1          stop; the runner repeats with backoff
``UsageError``     2          the caller's words are wrong; nothing was touched
``BatchHalted``    3          a gate stopped the batch before anything was merged
=================  =========  ==============================================================

Each carries a stable ``code`` whose sentence and advice come from :mod:`connectors.messages`.
"""

from __future__ import annotations

from connectors import messages


class YiciError(Exception):
    """Base of all errors shown to a user. ``values`` must hold no personal identifier."""

    exit_code = 1

    def __init__(self, code: str, /, **values: object) -> None:
        self.code = code
        self.values = values
        super().__init__(code)

    def message(self, lang: messages.Language | None = None) -> str:
        return messages.text(self.code, lang, **self.values)

    def advice(self, lang: messages.Language | None = None) -> str:
        return messages.advice(self.code, lang, **self.values)

    def __str__(self) -> str:
        return " ".join(part for part in (self.message(), self.advice()) if part)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.code, self.values)


def _rebuild(kind: type[YiciError], code: str, values: dict[str, object]) -> YiciError:
    return kind(code, **values)


class FatalError(YiciError):
    """Repeating will not help."""


class RetriableError(YiciError):
    """Repeating may help: a time-out, a lost connection, a server that is busy."""


class UsageError(YiciError):
    """The caller's words are wrong."""

    exit_code = 2


class BatchHalted(YiciError):
    """A gate stopped the batch; the store is as it was."""

    exit_code = 3
