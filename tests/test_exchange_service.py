"""A message on its way through the receiver, over real TLS into a real store: what is refused, and what happens once."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from connectors import envelope, signature
from connectors.envelope import Message
from connectors.errors import FatalError, RetriableError
from hub import records
from hub.exchange import certificates, keys, peers, serve, tls, wire
from hub.home import Home
from tests.exchanging import Hub, problem, question, send, two_hubs

MINUTES = dt.timedelta(minutes=1)


@pytest.fixture(scope="module")
def hubs(server_home: Home, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Hub]]:
    with two_hubs(server_home, template, tmp_path_factory.mktemp("hubs")) as both, both[1].serving():
        yield both


def refused(hubs: tuple[Hub, Hub], message: Message, code: str, **how: object) -> dict[str, object]:
    """The problem of the signed reply; it is recorded, once, with what came and what was said."""
    sh, zj = hubs
    reply = send(sh, zj, message, **how)  # type: ignore[arg-type]
    envelope.verify(reply, peers.keys_at(sh.peer("zj"), reply.envelope.at), "zj")
    assert reply.intact and reply.envelope.status == code, reply.body
    assert (reply.envelope.reply_to, reply.envelope.request) == (message.envelope.id, message.digest.hex())
    told = problem(reply)
    [record] = zj.rows("SELECT * FROM exchange_record WHERE reply = :reply", reply=reply.sealed)
    assert (record.message, record.outcome, record.direction) == (message.envelope.id, code, "answered")
    assert record.request == message.sealed
    return told


def test_an_answer(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    message = question(sh, zj, "test.echo", b'{"hello": "you"}', purpose="a test")
    reply = send(sh, zj, message)
    told = reply.envelope
    envelope.verify(reply, peers.keys_at(sh.peer("zj"), told.at), "zj")
    assert (reply.body, told.status, told.kind) == (message.body, "ok", "test.echo")
    assert (told.sender, told.receiver, told.reply_to) == ("zj", "sh", message.envelope.id)
    assert told.request == message.digest.hex() and reply.intact
    [record] = zj.rows("SELECT * FROM exchange_record WHERE message = :id", id=message.envelope.id)
    assert (record.peer, record.kind, record.outcome) == ("sh", "test.echo", "ok")
    assert (record.request, record.reply) == (message.sealed, reply.sealed)
    assert json.loads(record.detail) == {"bytes": 16, "purpose": "a test"}


def test_a_stranger_gets_no_further_than_tls(hubs: tuple[Hub, Hub], tmp_path: Path) -> None:
    sh, zj = hubs
    made = certificates.make("sh", dt.datetime.now(dt.UTC))  # calls itself as a peer does
    own = tmp_path / "stranger.pem"
    own.write_text(made.private + made.pem)
    before = zj.rows("SELECT count(*) AS n FROM exchange_record")[0].n
    with pytest.raises(RetriableError) as away:
        send(sh, zj, question(sh, zj), own=own)
    assert away.value.code == "partner-away"
    assert zj.rows("SELECT count(*) AS n FROM exchange_record")[0].n == before
    assert "refused at TLS: CERTIFICATE_VERIFY_FAILED" in zj.log()


def test_no_certificate_and_no_tls(hubs: tuple[Hub, Hub]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", hubs[1].port), timeout=10) as plain,
        context.wrap_socket(plain) as secured,
    ):
        secured.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not said(secured)
    with socket.create_connection(("127.0.0.1", hubs[1].port), timeout=10) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not said(plain)


def said(wire: socket.socket) -> bytes:
    try:
        return wire.recv(1000)
    except OSError:
        return b""


def test_another_server_is_told_nothing(hubs: tuple[Hub, Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sh, zj = hubs
    other = certificates.make("zj", dt.datetime.now(dt.UTC))
    # Not even when the machine's trust store and the environment speak for who answers.
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(keys.own(zj.home).certificates[0].public)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(bundle))
    with pytest.raises(FatalError) as refusal:
        send(sh, zj, question(sh, zj), pems=[other.pem])
    assert refusal.value.code == "partner-certificate"


def test_a_sender_nobody_knows(hubs: tuple[Hub, Hub]) -> None:
    """What it calls itself is neither kept nor told back: it may be anything."""
    sh, zj = hubs
    for name in ("ah", "11010519491231002x"):
        message = question(sh, zj, sender=name)
        reply = send(sh, zj, message)
        told = problem(reply)
        assert (reply.envelope.status, told["fault"]) == ("peer-unknown", "caller")
        assert name not in (told["values"].values()) and "11010519491231002x" not in reply.body.decode().lower()
        [record] = zj.rows("SELECT * FROM exchange_record WHERE message = :id", id=message.envelope.id)
        assert (record.peer, record.outcome, record.request, record.reply) == ("sh", "peer-unknown", None, None)
        assert "11010519491231002x" not in str(record).lower()


PERSON = "张三 11010519491231002X 13800138000"


@pytest.mark.parametrize("said", [
    {"note": PERSON}, {"head": {"name": PERSON}}, {"head": {"position": 1, "chain": "0" * 64, "at": PERSON, "signature": "a.b.c"}},
    {"type": "text/13800138000"},
])  # fmt: skip
def test_what_is_not_known_of_an_envelope_is_left_alone_and_kept_nowhere(
    hubs: tuple[Hub, Hub], said: dict[str, object]
) -> None:
    sh, zj = hubs
    good = question(sh, zj, "peer.check")
    told = json.loads(msgspec.json.encode(good.envelope)) | said
    sealed = signature.sign(json.dumps(told, ensure_ascii=False).encode(), sh.key(), envelope.TYPE)
    reply = send(sh, zj, sealed.encode() + b"\n" + good.body)
    assert reply.envelope.status == "ok", reply.body
    [record] = zj.rows("SELECT * FROM exchange_record WHERE message = :id", id=good.envelope.id)
    assert (record.outcome, record.request, record.reply) == ("ok", None, reply.sealed)
    assert reply.envelope.request == hashlib.sha256(sealed.encode()).hexdigest(), (
        "that it was this one can be shown still"
    )
    rows = zj.rows("SELECT * FROM exchange_record WHERE recorded_at >= :at", at=record.recorded_at - MINUTES)
    assert "13800138000" not in str(rows) and "张三" not in str(rows)
    assert base64.urlsafe_b64encode(b"13800138000")[:-4].decode() not in str(record)


@pytest.mark.parametrize("body", [b"", b"what", b"[]", b"null"])
def test_a_check_asks_for_nothing_in_json(hubs: tuple[Hub, Hub], body: bytes) -> None:
    sh, zj = hubs
    refused(hubs, question(sh, zj, "peer.check", body), "message-body")
    assert send(sh, zj, question(sh, zj, "peer.check", b'{"later": 1}')).envelope.status == "ok"


@contextlib.contextmanager
def third(zj: Hub, server_home: Home, template: str, folder: Path) -> Iterator[Hub]:
    """Another peer of Zhejiang's hub, ``js``."""
    with two_hubs(server_home, template, folder) as (other, _):
        other.name = "js"
        card = json.loads(other.card())
        with zj.acting() as engine, engine.begin() as connection:
            connection.execute(
                sa.text(
                    """INSERT INTO exchange_peer (name, title, region, addresses, keys, certificates, card_at)
                    SELECT 'js', 'js', '320000', addresses, :keys, :certificates, card_at FROM exchange_peer WHERE name = 'sh'"""
                ).bindparams(sa.bindparam("keys", type_=sa.JSON), sa.bindparam("certificates", type_=sa.JSON)),
                {"keys": card["keys"], "certificates": card["certificates"]},
            )
        try:
            assert send(other, zj, question(other, zj)).envelope.status == "ok"
            yield other
        finally:
            with zj.acting() as engine, engine.begin() as connection:
                connection.execute(sa.text("DELETE FROM exchange_peer WHERE name = 'js'"))


def test_the_certificate_of_one_peer_the_signature_of_another(
    hubs: tuple[Hub, Hub], server_home: Home, template: str, tmp_path: Path
) -> None:
    sh, zj = hubs
    with third(zj, server_home, template, tmp_path) as js:
        refused(hubs, question(sh, zj), "certificate-foreign", own=js.certificate())
        refused(hubs, question(js, zj), "certificate-foreign")
        refused(hubs, question(sh, zj, key=js.key()), "message-signature")
    [detail] = zj.rows(
        "SELECT detail FROM exchange_record WHERE outcome = 'message-signature' ORDER BY id DESC LIMIT 1"
    )
    assert json.loads(detail.detail)["certificate"] == keys.own(sh.home).certificates[0].name


@pytest.mark.slow
def test_nobody_waits_for_the_slow_questions_of_another(
    hubs: tuple[Hub, Hub], server_home: Home, template: str, tmp_path: Path
) -> None:
    sh, zj = hubs
    with third(zj, server_home, template, tmp_path) as js:
        slow = [question(sh, zj, "test.once", b'{"seconds": 6}') for _ in range(7)]
        threads = [threading.Thread(target=send, args=(sh, zj, message)) for message in slow]
        for thread in threads:
            thread.start()
        asleep = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
        deadline = time.monotonic() + 20
        while (busy := len(zj.rows(asleep))) < 6 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert busy == 6  # of its seven
        began = time.monotonic()
        assert send(js, zj, question(js, zj)).envelope.status == "ok"
        took = time.monotonic() - began
        for thread in threads:
            thread.join(40)
    assert took < 3, took


def test_an_altered_envelope(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    good = question(sh, zj)
    header, _, signed = good.sealed.split(".")
    told = msgspec.structs.replace(good.envelope, purpose="another")
    payload = envelope.signature.base64url(msgspec.json.encode(told))
    refused(hubs, Message(told, good.body, f"{header}.{payload}.{signed}"), "message-signature")
    other = "B" if good.sealed[-40] == "A" else "A"
    refused(hubs, Message(good.envelope, good.body, good.sealed[:-40] + other + good.sealed[-39:]), "message-signature")
    assert send(sh, zj, good).envelope.status == "ok"  # nothing was carried out under this id


def test_an_altered_body(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    good = question(sh, zj, "test.echo", b'{"a": 1}')
    refused(hubs, Message(good.envelope, b'{"a": 2}', good.sealed), "message-altered")
    assert send(sh, zj, good).envelope.status == "ok"


def test_a_message_for_another_hub(hubs: tuple[Hub, Hub]) -> None:
    refused(hubs, question(*hubs, receiver="ah"), "message-foreign")


def test_another_protocol(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    now = dt.datetime.now(dt.UTC)
    told = envelope.Envelope(
        protocol="yici/2", id=records.key(now), kind="test.echo", sender="sh", receiver="zj", at=now,
        digest=question(sh, zj).envelope.digest, size=2, type="application/json",
    )  # fmt: skip
    assert refused(hubs, envelope.signed(told, b"{}", sh.key()), "protocol-unknown")["values"] == {"known": "yici/1"}


@pytest.mark.parametrize("minutes", [-11, 11])
def test_a_message_of_another_time(hubs: tuple[Hub, Hub], minutes: int) -> None:
    now = dt.datetime.now(dt.UTC)
    told = refused(hubs, question(*hubs, at=now + minutes * MINUTES), "message-stale")
    heard = dt.datetime.fromisoformat(str(told["values"]["now"]))  # type: ignore[index]
    assert abs(heard - now) < MINUTES


@pytest.mark.parametrize("minutes", [-9, 9])
def test_a_clock_that_is_not_quite_right(hubs: tuple[Hub, Hub], minutes: int) -> None:
    at = dt.datetime.now(dt.UTC) + minutes * MINUTES
    assert send(*hubs, question(*hubs, at=at)).envelope.status == "ok"
    # Nor is the time that it gives any shorter or longer for that.
    message = question(*hubs, "test.once", at=at, deadline=at + dt.timedelta(seconds=10))
    assert send(*hubs, message).envelope.status == "ok"
    [done] = hubs[1].rows("SELECT deadline FROM test_done WHERE message = :id", id=message.envelope.id)
    assert dt.timedelta(0) < done.deadline - dt.datetime.now(dt.UTC) < dt.timedelta(seconds=10)


def test_an_unknown_kind(hubs: tuple[Hub, Hub]) -> None:
    assert "peer.check" in str(refused(hubs, question(*hubs, "test.nothing"), "kind-unknown")["values"])


def test_nothing_without_an_agreement(hubs: tuple[Hub, Hub]) -> None:
    refused(hubs, question(*hubs, "test.agreed"), "agreement-unknown")
    refused(
        hubs,
        question(*hubs, "test.agreed", agreement=f"{records.key(dt.datetime.now(dt.UTC))}/1"),
        "agreement-unknown",
    )


def test_a_deadline_that_is_over(hubs: tuple[Hub, Hub]) -> None:
    refused(hubs, question(*hubs, deadline=dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)), "deadline-over")
    slow = question(*hubs, "test.once", b'{"seconds": 20}', deadline=dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1))
    began = time.monotonic()
    refused(hubs, slow, "deadline-over")
    assert time.monotonic() - began < 5
    assert not hubs[1].rows("SELECT 1 FROM test_done WHERE message = :id", id=slow.envelope.id)


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00Z"])
def test_a_deadline_of_another_age_is_over(hubs: tuple[Hub, Hub], at: str) -> None:
    early = dt.datetime.fromisoformat(at)
    refused(hubs, question(*hubs, deadline=early), "deadline-over")
    refused(hubs, question(*hubs, at=dt.datetime.now(dt.UTC) + 9 * MINUTES, deadline=early), "deadline-over")
    late = dt.datetime.fromisoformat("9999-12-31T23:59:59-14:00")
    assert send(*hubs, question(*hubs, deadline=late)).envelope.status == "ok"


def test_a_body_of_another_form(hubs: tuple[Hub, Hub]) -> None:
    refused(hubs, question(*hubs, "test.once", b'{"seconds": "many"}'), "message-body")


def test_a_fault_of_the_hub_itself(hubs: tuple[Hub, Hub]) -> None:
    told = refused(hubs, question(*hubs, "test.fails", b"{}"), "internal")
    assert told["fault"] == "hub" and "nobody's business" not in json.dumps(told)
    assert "nobody's business" not in hubs[1].log()


def test_a_case_that_names_somebody_is_not_kept(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    message = question(sh, zj, case="case of 11010519491231002X")
    assert problem(send(sh, zj, message))["code"] == "case-names-somebody"
    [record] = zj.rows("SELECT request, detail FROM exchange_record WHERE message = :id", id=message.envelope.id)
    assert record.request is None
    forged = Message(message.envelope, message.body, message.sealed[:-4] + "AAAA")  # not even one that nobody signed
    assert problem(send(sh, zj, forged))["code"] == "message-signature"
    assert {
        row.request
        for row in zj.rows("SELECT request FROM exchange_record WHERE message = :id", id=message.envelope.id)
    } == {None}


@pytest.mark.parametrize("case", ["110105-19491231-002X", "110105 19491231 002X", "张三 13800138000"])
@pytest.mark.parametrize("label", ["case", "purpose"])
def test_nobody_is_named_in_groups_or_by_telephone_either(hubs: tuple[Hub, Hub], case: str, label: str) -> None:
    sh, zj = hubs
    message = question(sh, zj, **{label: case})
    assert problem(send(sh, zj, message))["code"] == "case-names-somebody"
    [record] = zj.rows("SELECT r::text AS text FROM exchange_record AS r WHERE message = :id", id=message.envelope.id)
    assert case not in record.text


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"a.b.c\n{}", b"\n\n", b"\x00" * 100, b"a" * 20_000 + b"\n"], ids=range(6)
)
def test_what_is_no_message(hubs: tuple[Hub, Hub], data: bytes) -> None:
    malformed(hubs, data)


def test_a_reply_is_no_question(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    reply = send(sh, zj, question(sh, zj))
    malformed(hubs, reply.wire)
    malformed(hubs, question(sh, zj, reply_to=reply.envelope.id, request="0" * 64, status="ok").wire)


def malformed(hubs: tuple[Hub, Hub], data: bytes) -> None:
    """Said in plain, and recorded under the peer whose certificate was shown."""
    sh, zj = hubs
    before = len(zj.outcomes(None))
    status, told = plain(sh, zj, data)
    assert (status, told["code"], told["fault"]) == (400, "message-malformed", "caller")
    assert zj.outcomes(None)[before:] == ["message-malformed"]
    [last] = zj.rows(
        "SELECT peer, kind, detail, request FROM exchange_record WHERE message IS NULL ORDER BY id DESC LIMIT 1"
    )
    assert (last.peer, last.kind, last.request) == ("sh", "-", None)


def plain(
    sender: Hub, receiver: Hub, data: bytes, length: int | None = None, path: str = "/v1/exchange"
) -> tuple[int, dict[str, object]]:
    """Status and problem document of a request made by hand; ``length``: what it says of itself."""
    context = tls.client_context(sender.certificate(), [keys.own(receiver.home).certificates[0].public])
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data) if length is None else length}\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", receiver.port), timeout=40) as raw,
        context.wrap_socket(raw) as secured,
    ):
        secured.sendall(head.encode())
        for start in range(0, len(data), 1 << 16):
            try:
                secured.sendall(data[start : start + (1 << 16)])
            except OSError:  # it has heard enough
                break
        got = b""
        while b"\r\n\r\n" not in got or not got.rstrip().endswith(b"}"):
            part = secured.recv(1 << 16)
            if not part:
                break
            got += part
    top, _, body = got.partition(b"\r\n\r\n")
    return int(top.split(b" ")[1]), json.loads(body)


def test_too_large(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    before = len(zj.outcomes(None))
    status, told = plain(sh, zj, b"x" * (envelope.LIMIT + 100_000))
    assert (status, told["code"]) == (413, "body-too-large")
    assert zj.outcomes(None)[before:] == ["body-too-large"]


def test_too_slow(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    before = len(zj.outcomes(None))
    answers: list[tuple[int, dict[str, object]]] = []
    waiting = threading.Thread(target=lambda: answers.append(plain(sh, zj, b"x", length=100)))
    waiting.start()
    assert send(sh, zj, question(sh, zj)).envelope.status == "ok"  # nobody waits for who is slow
    waiting.join(40)
    assert (answers[0][0], answers[0][1]["code"]) == (408, "body-slow")
    assert zj.outcomes(None)[before:] == ["body-slow"]


def test_no_peer_takes_it_all(hubs: tuple[Hub, Hub]) -> None:
    """More than its share at once is turned away, and recorded once there is time."""
    sh, zj = hubs
    answers: list[str] = []

    def ask() -> None:
        try:
            answers.append(str(send(sh, zj, question(sh, zj, "test.once", b'{"seconds": 2}')).envelope.status))
        except RetriableError as error:
            answers.append(str(error.values["status"]))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    busy = answers.count("503")
    assert busy > 0 and sorted(answers) == ["503"] * busy + ["ok"] * (20 - busy)
    assert send(sh, zj, question(sh, zj)).envelope.status == "ok"
    told = [json.loads(row.detail) for row in zj.rows("SELECT detail FROM exchange_record WHERE outcome = 'hub-busy'")]
    assert sum(one["times"] for one in told) == busy


def test_who_only_holds_connections_is_in_nobodys_way(
    hubs: tuple[Hub, Hub], server_home: Home, template: str, tmp_path: Path
) -> None:
    sh, zj = hubs
    context = tls.client_context(sh.certificate(), [keys.own(zj.home).certificates[0].public])
    with third(zj, server_home, template, tmp_path) as js, contextlib.ExitStack() as stack:
        for number in range(60):  # more than the listener takes of all
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", zj.port), timeout=40))
            with contextlib.suppress(OSError):
                line = stack.enter_context(context.wrap_socket(raw))
                if number % 2:
                    line.sendall(b"POST /v1/exchange HTTP/1.1\r\nHost: x\r\nX: ")
        wire._pools.clear()
        assert send(js, zj, question(js, zj)).envelope.status == "ok"
        assert wire.alive(zj.home, zj.port)
        deadline, status = time.monotonic() + 30, ""
        while status != "ok" and time.monotonic() < deadline:
            with contextlib.suppress(RetriableError):
                status = str(send(sh, zj, question(sh, zj)).envelope.status)
            time.sleep(0.1)
        assert status == "ok"  # those it held have ended meanwhile


def test_all_certificates_of_a_peer_count_together() -> None:
    pins = [peers.Pinned("sh", "aa", ""), peers.Pinned("sh", "bb", ""), peers.Pinned("zj", "cc", "")]
    assert serve._owners(pins) == {"aa": "sh", "bb": "sh", "cc": "zj"}
    claimed = peers.Pinned("zj", "bb", "")
    assert (
        serve._owners([*pins, claimed, claimed])["bb"] == "bb"
    )  # nobody uses up another's places by naming its certificate


def test_no_more_is_held_than_there_is_room_for(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    answers: list[tuple[int, str]] = []

    def say() -> None:
        status, told = plain(sh, zj, b"x" * (7 << 20), length=(7 << 20) + 1)  # the last byte never comes
        answers.append((status, str(told["code"])))

    threads = [threading.Thread(target=say) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert {code for _, code in answers} == {"hub-busy", "body-slow"} and len(answers) == 4
    assert send(sh, zj, question(sh, zj)).envelope.status == "ok"  # there is room again


def test_nothing_else_is_there(hubs: tuple[Hub, Hub]) -> None:
    assert plain(*hubs, b"", path="/v1/lookups")[0] == 404
    assert plain(*hubs, b"", path="/healthz")[0] == 404


def test_the_same_message_again_is_not_carried_out_again(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    message = question(sh, zj, "test.once")
    first = send(sh, zj, message)
    assert first.envelope.status == "ok"
    assert send(sh, zj, message).wire == first.wire
    other = question(sh, zj, "test.once", id=message.envelope.id, purpose="another")
    refused(hubs, other, "message-repeated")
    zj.stop()
    zj.start()
    assert send(sh, zj, message).wire == first.wire
    refused_again = question(sh, zj, "test.once", b'{"seconds": 0.01}', id=message.envelope.id)
    assert send(sh, zj, refused_again).envelope.status == "message-repeated"
    assert len(zj.rows("SELECT 1 FROM test_done WHERE message = :id", id=message.envelope.id)) == 1
    [kept] = zj.rows("SELECT reply FROM exchange_message WHERE message = :id", id=message.envelope.id)
    assert b"done" not in kept.reply and first.sealed.encode() not in kept.reply


def test_a_repeat_of_what_is_not_kept_is_refused(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    message = question(sh, zj)
    assert send(sh, zj, message).envelope.status == "ok"
    refused(hubs, message, "message-repeated")
    zj.stop()
    zj.start()
    assert send(sh, zj, message).envelope.status == "message-repeated"


def refusing(hub: Hub, *codes: str) -> None:
    """What ``test.unless`` is refused for from now on."""
    with hub.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM test_refusal"))
        for code in codes:
            connection.execute(sa.text("INSERT INTO test_refusal VALUES (:code)"), {"code": code})


def test_a_copy_of_what_was_refused_for_good_is_refused_when_it_could_be_carried_out(hubs: tuple[Hub, Hub]) -> None:
    """Whoever heard the refusal has gone on since; the network may bring the copy minutes later."""
    sh, zj = hubs
    message = question(sh, zj, "test.unless")
    refusing(zj, "correction-version-old")
    refused(hubs, message, "correction-version-old")
    first = send(sh, zj, message)
    refusing(zj)
    assert send(sh, zj, message).wire == first.wire
    assert zj.outcomes(message.envelope.id) == ["correction-version-old"]
    assert not zj.rows("SELECT 1 FROM test_done WHERE message = :id", id=message.envelope.id)
    assert send(sh, zj, question(sh, zj, "test.unless")).envelope.status == "ok", "asked anew"


def test_what_was_refused_for_the_moment_may_be_sent_again(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    message = question(sh, zj, "test.unless")
    refusing(zj, "store-unavailable")
    refused(hubs, message, "store-unavailable")
    refusing(zj)
    assert send(sh, zj, message).envelope.status == "ok"
    assert zj.outcomes(message.envelope.id) == ["store-unavailable", "ok"]


def test_a_refusal_gives_way_to_a_copy_that_was_carried_out_meanwhile(hubs: tuple[Hub, Hub]) -> None:
    """Of eight copies, in whatever order they come, all say the same."""
    sh, zj = hubs
    message = question(sh, zj, "test.unless", b'{"seconds": 0.2}')
    refusing(zj, "correction-version-old")
    replies: list[bytes] = []
    threads = [threading.Thread(target=lambda: replies.append(send(sh, zj, message).wire)) for _ in range(8)]
    for thread in threads:
        thread.start()
    refusing(zj)
    for thread in threads:
        thread.join(30)
    assert len(set(replies)) == 1 and len(replies) == 8


def test_the_same_message_many_times_at_once(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    message = question(sh, zj, "test.once", b'{"seconds": 0.5}')
    replies: list[bytes] = []
    threads = [threading.Thread(target=lambda: replies.append(send(sh, zj, message).wire)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(replies) == 8 and len(set(replies)) == 1
    assert len(zj.rows("SELECT 1 FROM test_done WHERE message = :id", id=message.envelope.id)) == 1
    assert zj.outcomes(message.envelope.id) == ["ok"]


def test_a_peer_that_is_removed_is_heard_no_more(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    assert send(sh, zj, question(sh, zj)).envelope.status == "ok"  # the connection stays open
    with zj.acting() as engine, engine.begin() as connection:
        peers.remove(connection, "sh")
    try:
        assert send(sh, zj, question(sh, zj)).envelope.status == "peer-unknown"
        with pytest.raises(RetriableError):  # and a new one is not let in
            wire._pools.clear()
            send(sh, zj, question(sh, zj))
    finally:
        zj.knows(sh)
    assert send(sh, zj, question(sh, zj)).envelope.status == "ok"


def test_a_key_and_a_certificate_are_replaced_while_the_old_ones_count(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    old_key, old_file = sh.key(), sh.certificate()
    with sh.acting():
        made = keys.rotate(dt.timedelta(hours=1))
    assert sh.key() is old_key and sh.certificate() == old_file  # until they end
    new_key, new_file = keys._private(sh.home, made.keys[-1].file), sh.home.keys / made.certificates[-1].file
    refused(hubs, question(sh, zj, key=new_key), "message-signature")
    card = sh.card()
    assert send(sh, zj, question(sh, zj, "peer.card", card)).envelope.status == "ok"
    for key in (old_key, new_key):
        for own in (old_file, new_file):
            assert send(sh, zj, question(sh, zj, key=key), own=own).envelope.status == "ok"
    # Near the end of the old ones the new ones are used.
    later = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=45)
    assert keys.own(sh.home).signing(later) is new_key and keys.own(sh.home).certificate(later) == new_file
    # A card that the old key signed after its end is none.
    ended = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    with zj.acting() as engine, engine.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE exchange_peer SET keys = jsonb_set(keys, '{0,to}', to_jsonb(CAST(:to AS text))) WHERE name = 'sh'"
            ),
            {"to": ended.isoformat()},
        )
    refused(hubs, question(sh, zj), "message-signature")
    assert send(sh, zj, question(sh, zj, "peer.card", sh.card(), key=new_key)).envelope.status == "card-signature"
    zj.knows(sh)


def test_cards_that_are_not_taken(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    first, later = sh.card(), sh.card()
    assert send(sh, zj, question(sh, zj, "peer.card", later)).envelope.status == "ok"
    assert send(sh, zj, question(sh, zj, "peer.card", later)).envelope.status == "ok"  # the same again changes nothing
    refused(hubs, question(sh, zj, "peer.card", first), "card-old")
    refused(hubs, question(sh, zj, "peer.card", zj.card()), "card-foreign")
    moved = json.loads(sh.card()) | {"addresses": ["https://elsewhere.example"]}
    refused(hubs, question(sh, zj, "peer.card", json.dumps(moved).encode()), "card-signature")
    refused(hubs, question(sh, zj, "peer.card", b"{}"), "card-invalid")
    assert zj.peer("sh").addresses == (sh.address,)
