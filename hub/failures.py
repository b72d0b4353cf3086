"""What goes wrong below a stage, in the words of the runner: a store that went away or a full disk may be repeated.

Nothing of the exceptions underneath is shown: a database's message may quote a row.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import psycopg
import sqlalchemy as sa

from connectors.errors import RetriableError, YiciError

P = ParamSpec("P")
T = TypeVar("T")

_FULL = (errno.ENOSPC, errno.EDQUOT)
_STATES = {  # SQLSTATE (PostgreSQL documentation, appendix A)
    "53100": "store-disk-full",
    "40P01": "store-busy",  # a deadlock was broken at our cost
    "40001": "store-busy",
    "55P03": "store-busy",
}


def named(function: Callable[P, T]) -> Callable[P, T]:
    """Raise RetriableError ``disk-full``, ``store-disk-full``, ``store-lost`` or ``store-busy`` where that is what happened."""

    @functools.wraps(function)
    def calling(*given: P.args, **more: P.kwargs) -> T:
        try:
            return function(*given, **more)
        except YiciError:
            raise
        except Exception as error:
            if (known := code(error)) is None:
                raise
            raise RetriableError(known) from error

    return calling


def code(error: BaseException) -> str | None:
    """The code of what happened, None where repeating would not help."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return "disk-full"
    lost = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
    origin = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if isinstance(origin, psycopg.Error) and origin.sqlstate in _STATES:
        return _STATES[origin.sqlstate]
    return "store-lost" if lost or isinstance(origin, psycopg.OperationalError) else None
