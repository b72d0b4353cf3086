"""Asking another hub: tried again, carried out once, verified, recorded; a partner that is away, dies, or lies."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import sqlalchemy as sa

from connectors import envelope
from connectors.envelope import Message
from connectors.errors import FatalError, RetriableError, UsageError, YiciError
from hub import records
from hub.exchange import keys, reach, tls, upkeep, wire
from hub.exchange.caller import PartnerFailed, PartnerProblem, ask
from hub.home import Home
from tests import examplepage
from tests.exchanging import Hub, two_hubs

Hubs = tuple[Hub, Hub]


@pytest.fixture(scope="module")
def hubs(server_home: Home, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hubs]:
    with two_hubs(server_home, template, tmp_path_factory.mktemp("hubs")) as both, both[1].serving():
        yield both


@pytest.fixture(autouse=True)
def rested(hubs: Hubs) -> Iterator[None]:
    """This process is Shanghai's hub, and thinks well of Zhejiang's."""
    sh, zj = hubs
    with sh.acting() as engine, engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE exchange_peer SET failures = 0, rests_until = NULL, addresses = :addresses"),
            {"addresses": [zj.address]},
        )
    with sh.acting():
        yield
    assert zj.process is None or zj.process.poll() is None, zj.log()


def asked(sh: Hub, message: uuid.UUID | None = None) -> Any:
    """The last record of a question, or that of ``message``."""
    where = "message = :id" if message else "true"
    query = f"SELECT * FROM exchange_record WHERE direction = 'asked' AND {where} ORDER BY id DESC LIMIT 1"
    [record] = sh.rows(query, id=message)
    return record


def test_a_question_and_its_reply_stand_in_both_ledgers(hubs: Hubs) -> None:
    sh, zj = hubs
    reply = ask("zj", "test.echo", {"a": 1}, purpose="a test")
    assert json.loads(reply.body) == {"a": 1}
    [here] = sh.rows("SELECT * FROM exchange_record WHERE message = :id", id=reply.envelope.reply_to)
    [there] = zj.rows("SELECT * FROM exchange_record WHERE message = :id", id=reply.envelope.reply_to)
    assert (here.request, here.reply) == (there.request, there.reply) and here.reply == reply.sealed
    assert (here.peer, here.direction, here.outcome) == ("zj", "asked", "ok")
    assert (there.peer, there.direction, there.outcome) == ("sh", "answered", "ok")
    assert sh.peer("zj").answered_at is not None
    assert ask("zj", "test.echo", b"\x00bytes", type="application/octet-stream").body == b"\x00bytes"


def test_what_is_not_agreed_does_not_leave(hubs: Hubs) -> None:
    zj = hubs[1]
    before = zj.rows("SELECT count(*) AS n FROM exchange_record")[0].n
    for code, kind, more in (
        ("agreement-unknown", "test.agreed", {}),
        ("case-names-somebody", "test.echo", {"case": "11010519491231002X"}),
        ("peer-unknown", "test.echo", {"peer": "ah"}),
    ):
        with pytest.raises(UsageError) as refusal:
            ask(more.pop("peer", "zj"), kind, {}, **more)  # type: ignore[arg-type]
        assert refusal.value.code == code
    with pytest.raises(FatalError):
        ask("zj", "test.nothing", {})
    assert zj.rows("SELECT count(*) AS n FROM exchange_record")[0].n == before


def test_a_deadline_is_passed_on(hubs: Hubs) -> None:
    zj = hubs[1]
    deadline = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=7)
    reply = ask("zj", "test.once", {}, seconds=30, deadline=deadline)
    [done] = zj.rows("SELECT deadline FROM test_done WHERE message = :id", id=reply.envelope.reply_to)
    assert abs(done.deadline - deadline) < dt.timedelta(seconds=3)
    reply = ask("zj", "test.once", {}, seconds=30, deadline=deadline + dt.timedelta(hours=1))
    [done] = zj.rows("SELECT deadline FROM test_done WHERE message = :id", id=reply.envelope.reply_to)
    assert dt.timedelta(seconds=20) < done.deadline - dt.datetime.now(dt.UTC) < dt.timedelta(seconds=31)
    with pytest.raises(RetriableError) as late:
        ask("zj", "test.echo", {}, deadline=dt.datetime.now(dt.UTC))
    assert late.value.code == "deadline-over"


def test_a_partner_that_takes_too_long(hubs: Hubs) -> None:
    sh, zj = hubs
    began = time.monotonic()
    with pytest.raises(YiciError) as late:
        ask("zj", "test.once", {"seconds": 20}, seconds=1.5)
    assert time.monotonic() - began < 5
    assert late.value.code in ("partner-away", "partner-refused"), late.value
    assert asked(sh).outcome in ("partner-away", "deadline-over")
    time.sleep(0.5)
    assert not zj.rows("SELECT 1 FROM test_done WHERE message = :id", id=asked(sh).message)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize(("kind", "outcomes"), [("test.once", ["sent", "interrupted"]), ("test.echo", ["interrupted"])])
def test_whatever_ends_it_there_is_a_record(
    hubs: Hubs, kind: str, outcomes: list[str], error: type[BaseException]
) -> None:
    """Of what must not happen twice already when it leaves."""
    sh, zj = hubs
    post, sent = wire.post, []

    def ending(*given: Any, **more: Any) -> bytes:
        message = envelope.read(given[4]).envelope.id
        sent.append((message, sh.outcomes(message, "asked")))
        post(*given, **more)
        raise error

    with mock.patch.object(wire, "post", ending), pytest.raises(error):
        ask("zj", kind, {})
    [(message, before)] = sent
    assert before == outcomes[:-1] and sh.outcomes(message, "asked") == outcomes
    assert zj.outcomes(message) == ["ok"], "it was carried out"
    reply = ask("zj", kind, {})
    assert sh.outcomes(reply.envelope.reply_to, "asked") == [*outcomes[:-1], "ok"]


@pytest.mark.parametrize("kind", ["test.once", "test.echo"])
def test_a_partner_that_dies_before_it_replies(hubs: Hubs, kind: str) -> None:
    sh, zj = hubs
    (zj.home.path / "die").touch()
    replies: list[Message] = []
    asking = threading.Thread(target=lambda: replies.append(ask("zj", kind, {}, seconds=60)))
    asking.start()
    assert zj.process is not None
    assert zj.process.wait(30) == 9
    zj.start()
    asking.join(60)
    [reply] = replies
    record = asked(sh)
    assert (record.outcome, record.message) == ("ok", reply.envelope.reply_to)
    if kind == "test.once":
        assert len(zj.rows("SELECT 1 FROM test_done WHERE message = :id", id=reply.envelope.reply_to)) == 1
        assert zj.outcomes(reply.envelope.reply_to) == ["ok"]
    else:  # what may be asked anew is, and both questions are told of
        [first] = sh.rows("SELECT * FROM exchange_record WHERE outcome = 'message-repeated' AND direction = 'asked'")
        assert zj.outcomes(first.message) == ["ok", "message-repeated"]
        assert first.message != reply.envelope.reply_to


def test_a_refusal_says_whose_fault_it_is(hubs: Hubs) -> None:
    sh = hubs[0]
    with pytest.raises(PartnerProblem) as refusal:
        ask("zj", "test.once", {"seconds": "many"})
    assert (refusal.value.values["code"], refusal.value.values["fault"]) == ("message-body", "caller")
    assert "carries" in refusal.value.message() and sh.peer("zj").failures == 0
    record = asked(sh)
    assert record.outcome == "message-body" and record.reply is not None
    with pytest.raises(PartnerFailed) as failure:
        ask("zj", "test.fails", {}, seconds=4)
    assert (failure.value.values["code"], failure.value.values["fault"]) == ("internal", "hub")
    assert asked(sh).outcome == "internal"


def test_as_much_as_a_message_holds(hubs: Hubs) -> None:
    most = envelope.LIMIT - envelope.LONGEST
    assert len(ask("zj", "test.long", str(most).encode()).body) == most
    assert len(ask("zj", "test.echo", b"x" * most, type="text/plain").body) == most
    with pytest.raises(FatalError) as refusal:
        ask("zj", "test.echo", b"x" * (most + 1))
    assert refusal.value.code == "body-too-large"
    with pytest.raises(PartnerFailed):
        ask("zj", "test.long", str(most + 1).encode(), seconds=4)


# -- partners that are away ----------------------------------------------------------------------------------------------


def addressed(sh: Hub, *addresses: str) -> None:
    with sh.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("UPDATE exchange_peer SET addresses = :addresses"), {"addresses": list(addresses)})


def test_the_next_address_is_tried(hubs: Hubs) -> None:
    sh, zj = hubs
    addressed(sh, "https://127.0.0.1:1", zj.address)
    assert ask("zj", "test.echo", {}, seconds=5).envelope.status == "ok"
    assert sh.peer("zj").failures == 0


class Counting(http.server.ThreadingHTTPServer):
    """Hangs up on everybody and counts them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
        self.count = 0

    def process_request(self, request: Any, client_address: Any) -> None:
        self.count += 1
        self.shutdown_request(request)


def test_a_partner_that_is_away_rests(hubs: Hubs) -> None:
    sh, _ = hubs
    with running(Counting()) as server:
        addressed(sh, f"https://127.0.0.1:{server.server_port}")
        for number in range(reach.ENOUGH):
            with pytest.raises(RetriableError) as away:
                ask("zj", "test.echo", {}, seconds=0.5)
            assert away.value.code == "partner-away"
            assert sh.peer("zj").failures == number + 1
        tried = server.count
        assert tried >= reach.ENOUGH
        record = asked(sh)
        assert (record.outcome, record.reply) == ("partner-away", None) and record.request is not None
        rests = sh.peer("zj").rests_until
        assert rests is not None and dt.timedelta(seconds=2) < rests - dt.datetime.now(dt.UTC) < dt.timedelta(seconds=8)
        for _ in range(20):
            with pytest.raises(RetriableError) as resting:
                ask("zj", "test.echo", {}, seconds=0.5)
            assert resting.value.code == "partner-resting"
        assert server.count == tried
        # When the rest is over, one of many tries.
        with sh.acting() as engine, engine.begin() as connection:
            connection.execute(sa.text("UPDATE exchange_peer SET rests_until = now() - interval '1 second'"))
        codes: list[str] = []
        all_have_looked, permit = threading.Barrier(10), reach.permit

        def together(*arguments: Any) -> None:
            all_have_looked.wait(20)
            permit(*arguments)

        def tries() -> None:
            try:
                ask("zj", "test.echo", {}, seconds=3)
            except YiciError as error:
                codes.append(error.code)

        threads = [threading.Thread(target=tries) for _ in range(10)]
        with mock.patch.object(reach, "permit", together):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(40)
        assert sorted(codes) == ["partner-away"] + ["partner-resting"] * 9
        assert server.count > tried
        after = sh.peer("zj").rests_until
        assert after is not None and after > rests
    addressed(sh, hubs[1].address)
    with sh.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("UPDATE exchange_peer SET rests_until = now() - interval '1 second'"))
    assert ask("zj", "test.echo", {}).envelope.status == "ok"
    assert (sh.peer("zj").failures, sh.peer("zj").rests_until) == (0, None)


def test_a_clock_that_was_put_back_makes_no_rest_longer(hubs: Hubs) -> None:
    sh, _ = hubs
    with sh.acting() as engine, engine.begin() as connection:
        rest = sa.text("UPDATE exchange_peer SET failures = :enough, rests_until = now() + CAST(:rest AS interval)")
        connection.execute(rest, {"enough": reach.ENOUGH, "rest": "10 minutes"})
    assert ask("zj", "test.echo", {}).envelope.status == "ok", "after three failures nobody rests for ten minutes"
    with sh.acting() as engine, engine.begin() as connection:
        connection.execute(rest, {"enough": reach.ENOUGH, "rest": "1 minute"})
    with pytest.raises(RetriableError) as resting:
        ask("zj", "test.echo", {})
    assert resting.value.code == "partner-resting", "it may be the time that the one call takes which tries it"
    with sh.acting() as engine, engine.begin() as connection:
        connection.execute(rest, {"enough": 30, "rest": "10 minutes"})
    with pytest.raises(RetriableError):
        ask("zj", "test.echo", {})
    with sh.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("UPDATE exchange_peer SET failures = 0, rests_until = NULL"))


# -- a partner that lies -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(server: http.server.HTTPServer) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextlib.contextmanager
def lying(
    hubs: Hubs, says: Callable[[Message], bytes], status: int = 200, length: int = 0, drips: bool = False
) -> Iterator[None]:
    """Something with the certificate of Zhejiang's hub that answers ``says(question)``, ``length`` bytes short: those come one
    by one where it ``drips``."""
    sh, zj = hubs

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            question = envelope.read(self.rfile.read(int(self.headers["Content-Length"])))
            data = says(question)
            self.send_response(status)
            self.send_header("Content-Length", str(len(data) + length))
            self.end_headers()
            self.wfile.write(data)
            with contextlib.suppress(OSError):
                for _ in range(length if drips else 0):
                    self.wfile.write(b" ")
                    time.sleep(0.1)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = tls.server_context(zj.certificate(), [entry.public for entry in keys.own(sh.home).certificates])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    addressed(sh, f"https://127.0.0.1:{server.server_port}")
    with running(server):
        yield


def reply(zj: Hub, question: Message, body: bytes = b"{}", key: Any = None, **members: Any) -> Message:
    now = dt.datetime.now(dt.UTC)
    told: dict[str, Any] = {
        "id": records.key(now), "kind": question.envelope.kind, "sender": "zj", "receiver": "sh", "at": now,
        "type": "application/json", "reply_to": question.envelope.id, "request": question.digest.hex(), "status": "ok",
        **members,
    }  # fmt: skip
    return envelope.signed(envelope.of(body, **told), body, key or zj.key())


def test_an_honest_reply_is_taken(hubs: Hubs) -> None:
    with lying(hubs, lambda question: reply(hubs[1], question, b'{"true": 1}').wire):
        assert ask("zj", "test.echo", {}).body == b'{"true": 1}'


LATE = dt.timedelta(minutes=11)
LIES: dict[str, tuple[str, Callable[[Hub, Message], bytes]]] = {
    "another body": ("message-altered", lambda zj, question: reply(zj, question).wire + b" "),
    "another key": ("message-signature", lambda zj, question: reply(zj, question, key=examplepage.key()).wire),
    "another hub": ("message-foreign", lambda zj, question: reply(zj, question, sender="ah").wire),
    "to another hub": ("message-foreign", lambda zj, question: reply(zj, question, receiver="ah").wire),
    "another question": ("reply-foreign", lambda zj, question: reply(zj, question, reply_to=uuid.uuid4()).wire),
    "a question of that id": ("reply-foreign", lambda zj, question: reply(zj, question, request="0" * 64).wire),
    "another kind": ("reply-foreign", lambda zj, question: reply(zj, question, kind="test.other").wire),
    "no status": ("reply-foreign", lambda zj, question: reply(zj, question, status=None).wire),
    "of tomorrow": ("message-stale", lambda zj, question: reply(zj, question, at=question.envelope.at + LATE).wire),
    "another version": (
        "protocol-unknown",
        lambda zj, question: _other_protocol(zj, question),
    ),
    "the question itself": ("message-signature", lambda zj, question: question.wire),
    "no message": ("message-malformed", lambda zj, question: b"<html>"),
    "too much": ("message-malformed", lambda zj, question: b"x" * (envelope.LIMIT + 1)),
    "a problem of another name": ("message-body", lambda zj, question: reply(zj, question, status="kind-unknown").wire),
}


def _other_protocol(zj: Hub, question: Message) -> bytes:
    import msgspec

    told = msgspec.structs.replace(reply(zj, question).envelope, protocol="yici/2")
    return envelope.seal(told, b"{}", zj.key())


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_not_taken_and_is_recorded(hubs: Hubs, lie: str) -> None:
    sh, zj = hubs
    code, says = LIES[lie]
    said: list[bytes] = []

    def answer(question: Message) -> bytes:
        said.append(says(zj, question))
        return said[-1]

    with lying(hubs, answer), pytest.raises(FatalError) as refusal:
        ask("zj", "test.echo", {}, seconds=5)
    assert refusal.value.code == code
    assert len(said) == 1  # it is not asked to lie again
    record = asked(sh)
    assert (record.outcome, record.peer) == (code, "zj")
    assert record.reply == (None if code == "message-malformed" else said[0].partition(b"\n")[0].decode())
    assert sh.peer("zj").failures == 1


def test_a_reply_that_was_recorded_is_no_reply_to_the_next_question(hubs: Hubs) -> None:
    zj = hubs[1]
    kept: list[bytes] = []

    def first(question: Message) -> bytes:
        kept.append(reply(zj, question).wire)
        return kept[0]

    with lying(hubs, first):
        ask("zj", "test.echo", {})
        with pytest.raises(FatalError) as refusal:
            kept_reply = kept[0]
            with lying(hubs, lambda _: kept_reply):
                ask("zj", "test.echo", {})
    assert refusal.value.code == "reply-foreign"


def test_half_a_reply_is_asked_for_again(hubs: Hubs) -> None:
    sh, zj = hubs
    questions: list[Message] = []

    def answer(question: Message) -> bytes:
        questions.append(question)
        return reply(zj, question, b'{"whole": true}').wire

    with lying(hubs, answer, length=10), pytest.raises(RetriableError) as away:
        ask("zj", "test.echo", {}, seconds=1.5)
    assert away.value.code == "partner-away" and len(questions) > 1
    assert len({question.wire for question in questions}) == 1  # the same message each time
    assert json.loads(json.dumps(asked(sh).detail) if isinstance(asked(sh).detail, dict) else asked(sh).detail)[
        "attempts"
    ] == len(questions)


def test_a_reply_that_drips_is_over_at_the_deadline(hubs: Hubs) -> None:
    sh, zj = hubs
    began = time.monotonic()
    with (
        lying(hubs, lambda question: reply(zj, question).wire, length=1000, drips=True),
        pytest.raises(RetriableError) as away,
    ):
        ask("zj", "test.echo", {}, seconds=1.5)
    assert time.monotonic() - began < 6
    assert (away.value.code, away.value.values["reason"]) == ("partner-away", "timeout")
    assert asked(sh).outcome == "partner-away" and sh.peer("zj").failures == 1


PLAIN = [(500, RetriableError), (503, RetriableError), (413, FatalError), (204, FatalError)]


@pytest.mark.parametrize(("status", "kind"), PLAIN)
def test_an_answer_in_plain_is_none(hubs: Hubs, status: int, kind: type[YiciError]) -> None:
    with lying(hubs, lambda question: reply(hubs[1], question).wire, status=status), pytest.raises(kind) as plain:
        ask("zj", "test.echo", {}, seconds=0.5)
    assert (plain.value.code, plain.value.values["status"]) == ("partner-plain", status)


def test_a_problem_cannot_smuggle_a_person_in(hubs: Hubs) -> None:
    told = {"code": "peer-unknown", "fault": "caller", "values": {"peer": "11010519491231002X"}}
    body = json.dumps(told).encode()
    with (
        lying(hubs, lambda question: reply(hubs[1], question, body, status="peer-unknown").wire),
        pytest.raises(PartnerProblem) as refusal,
    ):
        ask("zj", "test.echo", {})
    assert "11010519491231002X" not in str(refusal.value) and refusal.value.values["reason"] == "peer-unknown"


def test_nor_in_its_code(hubs: Hubs) -> None:
    sh, zj = hubs
    code = "11010519491231002x"
    body = json.dumps({"code": code, "fault": "caller", "values": {}}).encode()
    with (
        lying(hubs, lambda question: reply(zj, question, body, status=code).wire),
        pytest.raises(FatalError) as refusal,
    ):
        ask("zj", "test.echo", {})
    assert refusal.value.code == "message-body" and code not in str(refusal.value)
    assert (asked(sh).outcome, asked(sh).reply) == ("message-body", None), "nor is the envelope kept, which says it too"


# -- what goes on beside it ----------------------------------------------------------------------------------------------


def test_peers_hear_of_a_new_key(hubs: Hubs) -> None:
    sh, zj = hubs
    assert upkeep.introduce() == {"zj": "ok"} and upkeep.introduce() == {}
    made = keys.rotate(dt.timedelta(hours=1))
    assert upkeep.introduce() == {"zj": "ok"}
    assert [key.kid for key in zj.peer("sh").keys] == [key.name for key in made.keys]
    # The old ones have ended: the new ones are used, and known.
    path = sh.home.keys / keys.FILE
    said = json.loads(path.read_text())
    for part in ("keys", "certificates"):
        said[part][0]["to"] = (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)).isoformat()
    path.unlink()
    path.write_text(json.dumps(said))
    assert ask("zj", "test.echo", {}).envelope.status == "ok"
    assert sh.certificate().name == made.certificates[-1].file


def test_no_peer_waits_for_what_another_is_slow_to_hear(hubs: Hubs) -> None:
    sh, zj = hubs
    free = threading.Event()

    def never(question: Message) -> bytes:
        free.wait(60)
        return b""

    columns = "region, title, keys, certificates, card_at"
    beside = upkeep.Upkeep(0.1)
    with lying(hubs, never):
        with sh.acting() as engine, engine.begin() as connection:
            connection.execute(
                sa.text(
                    f"""INSERT INTO exchange_peer (name, addresses, {columns})
                    SELECT 'ah', addresses, {columns} FROM exchange_peer WHERE name = 'zj'"""
                )
            )
            connection.execute(
                sa.text("UPDATE exchange_peer SET addresses = :own, told_at = NULL WHERE name = 'zj'"),
                {"own": [zj.address]},
            )
        try:
            beside.start()
            deadline = time.monotonic() + 15  # a call takes thirty seconds
            while sh.peer("zj").told_at is None and time.monotonic() < deadline:
                time.sleep(0.1)
            assert sh.peer("zj").told_at is not None and sh.peer("ah").told_at is None
            assert sum(thread.name == "yici-tell-ah" for thread in threading.enumerate()) == 1
        finally:
            beside.stop()
            free.set()
            beside._thread.join(40)
            with sh.acting() as engine, engine.begin() as connection:
                connection.execute(sa.text("DELETE FROM exchange_peer WHERE name = 'ah'"))


def test_old_messages_are_forgotten(hubs: Hubs) -> None:
    _, zj = hubs
    reply = ask("zj", "test.once", {})
    with zj.acting():
        upkeep.forget()
        assert zj.rows("SELECT 1 FROM exchange_message WHERE message = :id", id=reply.envelope.reply_to)
        assert upkeep.forget(dt.datetime.now(dt.UTC) + upkeep.KEPT) > 0
        assert not zj.rows("SELECT 1 FROM exchange_message")
    assert upkeep.KEPT > 2 * envelope.SKEW
