"""``yici exchange serve`` with kinds for tests: ``python -m tests.exchange_server PORT``.

``test.echo`` says what it was told; ``test.once`` writes a row, after ``seconds``, and must not do so twice; ``test.unless``
is the same, refused while a code stands in its table; ``test.long`` has as many bytes; ``test.fails`` meets a fault of its own; ``test.agreed`` needs an agreement. When ``die`` lies in the home, the process dies at the next
message: carried out, and no reply sent. ``YICI_TEST_CLOCK`` moves its clock by so many minutes.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
import uuid
from typing import Any

import msgspec
import sqlalchemy as sa

from connectors.errors import FatalError
from hub import database, home
from hub.api import patience
from hub.exchange import kinds, serve, service, tls
from hub.exchange.service import Answer, Context, Kind

CLOCK = "YICI_TEST_CLOCK"
DATETIME = dt.datetime
DONE = "CREATE TABLE IF NOT EXISTS test_done (message uuid, deadline timestamptz)"
REFUSAL = "CREATE TABLE IF NOT EXISTS test_refusal (code text)"


class Once(msgspec.Struct):
    seconds: float = 0.0


def echo(context: Context) -> Answer:
    return Answer(context.body, context.message.envelope.type, {"bytes": len(context.body)})


def once(context: Context) -> Answer:
    told, asked = context.decoded(Once), context.message.envelope
    context.connection.execute(
        sa.text("INSERT INTO test_done SELECT CAST(:message AS uuid), :deadline FROM pg_sleep(:seconds)"),
        {"message": str(asked.id), "deadline": context.deadline, "seconds": told.seconds},
    )
    return Answer.of({"done": str(uuid.uuid4())})


def unless(context: Context) -> Answer:
    told = context.connection.scalar(sa.text("SELECT max(code) FROM test_refusal"))
    if told is not None:
        raise FatalError(told)
    return once(context)


def long(context: Context) -> Answer:
    return Answer(b" " * int(context.body))


def fails(context: Context) -> Answer:
    raise ValueError("nobody's business")


KINDS = {
    "test.echo": Kind(echo, needs_agreement=False),
    "test.once": Kind(once, once=True, needs_agreement=False),
    "test.unless": Kind(unless, once=True, needs_agreement=False),
    "test.long": Kind(long, needs_agreement=False),
    "test.fails": Kind(fails, needs_agreement=False),
    "test.agreed": Kind(echo),
}


class Shifted(type):
    """Whatever is a moment is one of the moved clock too."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, DATETIME)


def clock(minutes: float) -> None:
    """From now on this process lives so many minutes later."""

    class Moved(DATETIME, metaclass=Shifted):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return DATETIME.now(tz) + dt.timedelta(minutes=minutes)

    dt.datetime = Moved  # type: ignore[misc]


def main() -> None:
    clock(float(os.environ.get(CLOCK, "0")))
    kinds.register().update(KINDS)
    with database.engine().begin() as connection:
        connection.execute(sa.text(DONE))
        connection.execute(sa.text(REFUSAL))
    receive, die = service.receive, home.current().path / "die"

    def dying(*arguments: Any) -> bytes:
        reply = receive(*arguments)
        if die.exists():
            die.unlink()
            os._exit(9)
        return reply

    service.receive = dying
    serve.BODY_SECONDS, serve.SHARE, serve.BUFFERED = 3, 12, 20 << 20
    tls.CONNECTIONS, serve.CONNECTIONS, patience.HEAD_SECONDS = 24, 40, 4
    serve.serve("127.0.0.1", int(sys.argv[1]))


if __name__ == "__main__":
    main()
