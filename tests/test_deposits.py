"""Deposits over HTTP: received once, landed before they are recorded, held when a person verified them."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from connectors.errors import UsageError
from connectors.landing import Landing
from hub import (
    agreements,
    database,
    deposit_review,
    deposit_sources,
    deposits,
    home,
    lineage,
    pipeline,
    quarantine,
    rebuild,
    review,
    state,
    verify,
)
from hub.api.app import create
from hub.home import Home
from mappings import model
from tests import licences, linked, papers, stored
from tests.serving import FORM, LICENCE, problem, served

ITEMS = ["demo-food-permit", "demo-publication-retail"]
PREMISES = {
    "material": "premises-proof",
    "holders": {"holder": {"id": LICENCE, "name": "示例有限公司"}},
    "envelope": {"certificate_number": "LEASE-1", "name": "房屋租赁合同", "valid_to": "2999-12-31"},
    "attributes": {"address": "上海市和平路1号", "area_square_metres": "120.50", "right": "租赁"},
}
MATERIALS = ["premises-proof", "food-safety-rules", "business-licence", "marriage-certificate"]


class Hall:
    """A client with a token, and what it sends."""

    def __init__(self, base: str, client: str = "hall-1", deposits: Any = tuple(MATERIALS)) -> None:
        shown = {"premises-proof": ["status"]}
        secret = agreements.add(client, None, client, ITEMS, ["handle"], deposits=deposits, fields=shown)
        self.base, self.session = base, requests.Session()
        self.session.trust_env = False
        token = self.session.post(f"{base}/oauth2/token", data=FORM, auth=(client, secret), timeout=30).json()
        self.session.headers["Authorization"] = f"Bearer {token['access_token']}"

    def ask(self, item: str = ITEMS[0], applicant: str = LICENCE, **more: Any) -> dict[str, Any]:
        answer = self.session.post(
            f"{self.base}/v1/lookups", json={"items": [item], "id": applicant, "case": "31-1", **more}, timeout=30
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["answers"][0])

    def send(
        self, said: Any, file: bytes = papers.PNG, kind: str = "image/png", key: str = "key-00000001"
    ) -> requests.Response:
        text = said if isinstance(said, str | bytes) else json.dumps(said)
        parts = {
            "deposit": (None, text, "application/json"),
            "file": ("张三.png", file, kind),
        }
        return self.session.post(
            f"{self.base}/v1/deposits", files=parts, headers={"Idempotency-Key": key}, timeout=60
        )  # fmt: skip

    def hand_in(self, said: dict[str, Any], key: str = "key-00000001", **more: Any) -> dict[str, Any]:
        answer = self.send({"answer": self.ask()["answer"], **said}, key=key, **more)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())


@pytest.fixture(scope="module")
def engine(server_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    yield from linked.store(server_home, tmp_path_factory.mktemp("state"))


@pytest.fixture
def store(engine: sa.Engine) -> sa.Engine:
    return stored.emptied(engine)


@pytest.fixture(scope="module")
def base(engine: sa.Engine) -> Iterator[str]:
    with served(create()) as address:
        yield address


@pytest.fixture
def hall(store: sa.Engine, base: str) -> Hall:
    return Hall(base)


def count(engine: sa.Engine, table: str = "deposit") -> int:
    with engine.connect() as connection:
        return int(connection.scalar(sa.text(f"SELECT count(*) FROM {table}")) or 0)


def landed() -> list[str]:
    zone = Landing(home.current().landing_url).zone
    return [
        f"{month}/{name}" for month in zone.names(deposits.FOLDER) for name in zone.names(f"{deposits.FOLDER}/{month}")
    ]


def disposition(answer: dict[str, Any], requirement: str) -> str:
    return str(next(one["disposition"] for one in answer["requirements"] if one["requirement"] == requirement))


def verified(deposit: str, **more: Any) -> dict[str, Any]:
    return deposit_review.decide(deposit_review.VERIFY, [deposit], actor="clerk", **more)[0]


def rejected(deposit: str, **more: Any) -> dict[str, Any]:
    return deposit_review.decide(deposit_review.REJECT, [deposit], actor="clerk", **more)[0]


def test_received_landed_recorded(store: sa.Engine, hall: Hall) -> None:
    file = papers.pdf()
    given = hall.hand_in(PREMISES, file=file, kind="application/pdf")
    assert given["state"] == "waiting" and given["signature"] == "unsigned" and given["case"] == "31-1"
    digest = hashlib.sha256(file).hexdigest()
    assert given["file"] == {"sha256": digest, "size": len(file), "media_type": "application/pdf"}
    with store.connect() as connection:
        row = deposits.get(connection, given["deposit"])
    zone = Landing(home.current().landing_url).zone
    assert zone.read(row.file) == file and row.file.startswith("deposits/") and row.file.endswith(digest)
    said = json.loads(zone.read(row.landed))
    assert said["attributes"] == PREMISES["attributes"] and said["purpose"] == "handle"
    assert "张三" not in json.dumps(said, ensure_ascii=False), "a file's name may name somebody"
    got = hall.session.get(f"{hall.base}/v1/deposits/{given['deposit']}", timeout=30)
    assert got.json() == given
    other = Hall(hall.base, "hall-2")
    for client, named in ((other, given["deposit"]), (hall, "nothing"), (hall, "0" * 32)):
        problem(client.session.get(f"{hall.base}/v1/deposits/{named}", timeout=30), 404, "deposit-unknown")


def test_the_same_key_brings_the_same_deposit(store: sa.Engine, hall: Hall) -> None:
    answer = hall.ask()["answer"]
    said = {"answer": answer, **PREMISES}
    results: list[requests.Response] = []
    threads = [threading.Thread(target=lambda: results.append(hall.send(said))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(one.status_code for one in results) == [200, 200, 200, 201], [one.text for one in results]
    assert len({one.json()["deposit"] for one in results}) == 1
    assert (count(store), len(landed())) == (1, 2)
    changed = {**said, "attributes": {**PREMISES["attributes"], "right": "自有"}}
    problem(hall.send(changed), 409, "idempotency-conflict")
    problem(hall.send(said, papers.PNG + b"another"), 409, "idempotency-conflict")
    problem(hall.send({**said, "answer": hall.ask()["answer"]}), 409, "idempotency-conflict")
    assert hall.send(said, papers.PNG + b"another", key="key-00000002").status_code == 201
    assert (count(store), len(landed())) == (2, 4)


WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"material": "resident-id-card"}, 403, "deposit-not-agreed"),
    ({"answer": "nothing"}, 404, "answer-unknown"),
    ({"material": "marriage-certificate"}, 409, "deposit-not-asked"),
    ({"holders": {"holder": {"id": "cn.uscc:91440300708461136T"}}}, 422, "deposit-not-party"),
    ({"holders": {"holder": {"id": "cn.uscc:91310117MA1J3AJ43X"}}}, 422, "identifier-invalid"),
    ({"holders": {"holder": {"id": f"cn.ric:{stored.RESIDENT}"}}}, 422, "identifier-unfit"),
    ({"holders": {"owner": {"id": LICENCE}}}, 422, "role-unknown"),
    ({"envelope": {}}, 422, "deposit-incomplete"),
    ({"attributes": {"colour": "red"}}, 422, "deposit-attribute"),
    ({"attributes": {"area_square_metres": "large"}}, 422, "deposit-attribute"),
    ({"attributes": {"area_square_metres": True}}, 422, "deposit-attribute"),
    ({"envelope": {"certificate_number": "1", "valid_to": "soon"}}, 422, "body-invalid"),
    ({"envelope": {"certificate_number": "1", "status": "in_force"}}, 422, "body-invalid"),
    (
        {"envelope": {"certificate_number": "1", "valid_from": "2026-02-01", "valid_to": "2026-01-31"}},
        422,
        "deposit-dates",
    ),
    ({"holders": {}}, 422, "body-invalid"),
    ({"more": 1}, 422, "body-invalid"),
]


def test_what_is_wrong_with_a_deposit(store: sa.Engine, hall: Hall, subtests: pytest.Subtests) -> None:
    answer = hall.ask()["answer"]
    said = {"answer": answer, **PREMISES}
    for change, status, code in WRONG:
        with subtests.test(msg=code):
            problem(hall.send({**said, **change}), status, code)
    other = Hall(hall.base, "hall-2", deposits=())
    problem(other.send(said), 403, "deposit-not-agreed")
    third = Hall(hall.base, "hall-3")
    problem(third.send(said), 404, "answer-unknown")
    problem(hall.send("{"), 400, "body-malformed")
    for key in ("", "short", "key 00000001", stored.LICENCE_CODE, f"key-{stored.RESIDENT}-1"):
        problem(hall.send(said, key=key), 422, "idempotency-key-invalid")
    for file, kind in (
        (papers.PNG, "application/pdf"),
        (papers.pdf(), "text/plain"),
        (b"<html>", "image/png"),
        (papers.PNG[:8], "image/png"),
    ):
        problem(hall.send(said, file, kind), 415, "file-mislabelled")
    address, headers = f"{hall.base}/v1/deposits", {"Idempotency-Key": "key-00000009"}
    problem(hall.session.post(address, json=said, headers=headers, timeout=30), 415, "media-type-unsupported")
    for parts in (
        {"deposit": (None, json.dumps(said))}, {"file": ("a", papers.PNG, "image/png")},
        {"deposit": (None, json.dumps(said)), "file": ("a", b"", "image/png")},
        {"deposit": (None, json.dumps(said)), "more": (None, "x"), "file": ("a", papers.PNG, "image/png")},
        {"deposit": (None, " " * 70_000), "file": ("a", papers.PNG, "image/png")},
    ):  # fmt: skip
        problem(hall.session.post(address, files=parts, headers=headers, timeout=30), 400, "multipart-malformed")
    broken = {**headers, "Content-Type": "multipart/form-data; boundary=x"}
    problem(hall.session.post(address, data=b"--x\r\nnothing", headers=broken, timeout=30), 400, "multipart-malformed")
    assert (count(store), landed()) == (0, [])


def test_a_large_file_is_refused_and_strangers_send_none(store: sa.Engine, hall: Hall) -> None:
    said = {"answer": hall.ask()["answer"], **PREMISES}
    most = papers.PNG + b"\0" * (deposits.LARGEST - len(papers.PNG))
    for size in (deposits.LARGEST + 1, deposits.LARGEST + 200_000):
        problem(hall.send(said, most + b"\0" * (size - len(most)), "image/png"), 413, "deposit-too-large")
    assert landed() == []
    assert hall.send(said, most, "image/png").json()["file"]["size"] == deposits.LARGEST
    stranger = requests.post(f"{hall.base}/v1/deposits", data=b"x" * 5_000_000, timeout=30)
    assert (stranger.status_code, stranger.json()["code"]) == (401, "token-missing")


def test_who_breaks_off_leaves_nothing(store: sa.Engine, hall: Hall) -> None:
    host, port = hall.base.removeprefix("http://").split(":")
    head = (
        f"POST /v1/deposits HTTP/1.1\r\nHost: {host}\r\nAuthorization: {hall.session.headers['Authorization']}\r\n"
        "Idempotency-Key: key-00000001\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000\r\n\r\n--x\r\n"
    )
    with socket.create_connection((host, int(port))) as wire:
        wire.sendall(head.encode())
        time.sleep(0.3)
    time.sleep(0.3)
    assert hall.hand_in(PREMISES)["state"] == "waiting", "the key was not used up"
    counted = requests.get(f"{hall.base}/metrics", timeout=30).text
    assert 'route="/v1/deposits",status="400"' in counted and 'route="/v1/deposits",status="500"' not in counted


def test_other_kinds_of_files(store: sa.Engine, hall: Hall) -> None:
    for place, (file, kind) in enumerate(
        ((papers.PNG, "image/png"), (papers.JPEG, "image/jpeg"), (papers.ofd(), "application/ofd"))
    ):
        given = hall.hand_in(PREMISES, file=file, kind=kind, key=f"key-0000010{place}")
        assert (given["signature"], given["file"]["media_type"]) == ("unchecked", kind)


def test_once_verified_it_is_held_and_rejected_no_more(store: sa.Engine, hall: Hall) -> None:
    """End to end: asked for, handed in, verified, not asked for again, fetched as evidence, rejected, asked for again."""
    assert disposition(hall.ask(), "premises") == "submit"
    given = hall.hand_in(PREMISES)
    assert disposition(hall.ask(), "premises") == "submit", "nobody has looked at it yet"
    done = verified(given["deposit"], note="original seen")
    assert done["state"] == "held" and done["holding"]
    answer = hall.ask(ITEMS[1])
    assert disposition(answer, "premises") == "held"
    [found] = next(one["holdings"] for one in answer["requirements"] if one["requirement"] == "premises")
    assert found["holding"] == done["holding"] and found["valid_to"] == "2999-12-31"
    fetched = hall.session.get(
        f"{hall.base}/v1/evidence/{done['holding']}", headers={"Yici-Grant": answer["answer"]}, timeout=30
    )
    assert fetched.json()["source"]["source"] == "hub-deposits-premises-proof" and not fetched.json()["source"]["late"]
    assert verified(given["deposit"]) == done
    report = verify.verify(store, read_bytes=True)
    assert report.ok, report.shown()

    gone = rejected(given["deposit"], note="the lease was false")
    assert gone["state"] == "rejected"
    assert disposition(hall.ask(), "premises") == "submit"
    with pytest.raises(UsageError, match="rejected"):
        verified(given["deposit"])
    assert rejected(given["deposit"]) == gone
    with store.connect() as connection:
        kinds = connection.scalars(sa.text("SELECT kind FROM decision ORDER BY id")).all()
        merged = connection.execute(sa.text("SELECT kind, accepted FROM batch ORDER BY started_at")).all()
    assert kinds == [deposit_review.VERIFY, deposit_review.REJECT]
    assert [row.accepted for row in merged] == [1, 1]
    assert verify.verify(store).ok


def test_two_firms_may_number_their_letters_alike(store: sa.Engine, base: str) -> None:
    """Both are held: the principal belongs to what makes a letter of authorisation one."""
    hall = Hall(base, deposits=("authorisation",))
    letters = []
    for place, firm in enumerate((LICENCE, "cn.uscc:91440300708461136T")):
        said = {
            "material": "authorisation", "envelope": {"certificate_number": "委托书-001", "valid_to": "2999-12-31"},
            "holders": {"holder": {"id": firm}, "agent": {"id": f"cn.ric:{stored.RESIDENT}"}},
        }  # fmt: skip
        sent = hall.send({"answer": hall.ask(applicant=firm)["answer"], **said}, key=f"key-0000000{place}")
        assert sent.status_code == 201, sent.text
        letters.append((firm, verified(sent.json()["deposit"])))
    assert len({done["holding"] for _, done in letters}) == 2
    for firm, done in letters:
        answer = hall.ask(applicant=firm, roles={"agent": f"cn.ric:{stored.RESIDENT}"})
        [found] = next(one["holdings"] for one in answer["requirements"] if one["requirement"] == "authorisation")
        assert found["holding"] == done["holding"]
    codes = ("home-purchase-contract", "retirement-certificate", "pension-contribution-certificate")
    for material in map(model.load, codes):
        assert {"issuer_name", "certificate_number"} < set(material.natural_key)
        assert any(column.startswith("holder.") for column in material.natural_key), material.code


def test_what_became_somebody_elses_certificate_is_not_held(store: sa.Engine, hall: Hall) -> None:
    given = verified(hall.hand_in(PREMISES)["deposit"])
    with store.begin() as connection:  # as a register's word on the same certificate would
        connection.execute(sa.text("UPDATE holding_holder SET identifier = decode(repeat('07', 16), 'hex')"))
    with store.connect() as connection:
        row = deposits.get(connection, given["deposit"])
        assert [one.id for one in deposits.listed(connection, "verified")] == [row.id]
        assert deposits.listed(connection, "held") == []
    shown = deposits.shown(row)
    assert (shown["state"], shown["holding"], shown["reasons"]) == ("verified", None, [deposits.OF_ANOTHER])


def test_rejected_before_it_was_held_leaves_nothing(store: sa.Engine, hall: Hall) -> None:
    given = hall.hand_in(PREMISES)
    assert rejected(given["deposit"])["state"] == "rejected"
    assert [count(store, table) for table in ("holding", "row_ledger", "batch")] == [0, 0, 0]
    with pytest.raises(UsageError):
        deposit_review.decide(deposit_review.VERIFY, [], actor="clerk")


def observed(engine: sa.Engine) -> list[tuple[str, str, int]]:
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT source, status, observations FROM holding ORDER BY key"))
        return [tuple(row) for row in rows]


def test_a_copy_that_is_rejected_leaves_what_the_other_says(store: sa.Engine, hall: Hall) -> None:
    """Two deposits of one certificate: rejecting one takes its word back, and nothing else."""
    first, copy = (hall.hand_in(PREMISES, key=f"key-0000000{place}")["deposit"] for place in (1, 2))
    assert verified(first)["state"] == verified(copy)["state"] == "held"
    source = "hub-deposits-premises-proof"
    assert observed(store) == [(source, "in_force", 2)]
    assert rejected(copy)["state"] == "rejected"
    assert observed(store) == [(source, "in_force", 1)]
    assert disposition(hall.ask(), "premises") == "held"
    with store.connect() as connection:
        assert deposits.get(connection, first).standing == "held"
        batch = connection.execute(sa.text("SELECT * FROM batch ORDER BY started_at DESC LIMIT 1")).one()
        assert (batch.fetched, batch.accepted, batch.quarantined, batch.withdrawn) == (1, 1, 0, 1)
    assert verify.verify(store).ok
    done = verified(first)
    assert (done["state"], observed(store)) == ("held", [(source, "in_force", 1)])

    assert rejected(first)["state"] == "rejected"
    assert observed(store) == []
    answer = hall.ask()
    [found] = [one for one in answer["requirements"] if one["requirement"] == "premises"]
    assert (found["disposition"], found["reason_code"]) == ("submit", "no-source")
    known = lineage.of_holding(done["holding"])
    assert not known["held"] and known["versions"], "history keeps it"
    assert verify.verify(store).ok


def test_of_two_deposits_the_later_counts_and_the_other_is_told_so(store: sa.Engine, hall: Hall) -> None:
    """Until the wrong one is rejected."""
    first = verified(hall.hand_in(PREMISES)["deposit"])["deposit"]
    over = {**PREMISES["envelope"], "valid_to": "2020-01-31"}
    second = verified(hall.hand_in({**PREMISES, "envelope": over}, "key-00000002")["deposit"])["deposit"]
    with store.connect() as connection:
        told = deposits.shown(deposits.get(connection, first))
        assert deposits.get(connection, second).standing == "held", "it is its own word that counts"
    assert disposition(hall.ask(), "premises") == "expired"
    assert told["state"] == "overruled" and "Reject" in told["overruled"]["advice"]
    assert told["overruled"]["fields"] == [{"field": "valid_to", "counts": "2020-01-31", "deposit": "2999-12-31"}]
    rejected(second)
    with store.connect() as connection:
        assert deposits.get(connection, first).standing == "held"
    assert disposition(hall.ask(), "premises") == "held"


def test_what_older_hubs_cancelled_is_taken_back_when_it_is_rejected_again(
    store: sa.Engine, hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, copy = (hall.hand_in(PREMISES, key=f"key-0000000{place}")["deposit"] for place in (1, 2))
    with monkeypatch.context() as patch:
        patch.setattr(deposit_sources, "REJECTED", "nothing")  # rows say cancelled, as they did, and are read as that
        for one in (first, copy):
            verified(one)
        rejected(copy)
        assert observed(store) == [("hub-deposits-premises-proof", "cancelled", 2)]
    rejected(copy)
    assert observed(store) == [("hub-deposits-premises-proof", "in_force", 1)]
    assert verify.verify(store).ok


def test_a_department_knows_better(store: sa.Engine, hall: Hall, tmp_path: Path) -> None:
    """Of one licence, handed in and in the register, the register's word counts; both stand as observations."""
    code = f"cn.uscc:{licences.credit_code(1)}"
    pipeline.run("sh-amr-enterprises", input=licences.write(tmp_path / "2019.csv", licences.rows(2)))
    licence = {
        "material": "business-licence", "holders": {"holder": {"id": code, "name": "上海示例1号有限公司"}},
        "envelope": {"certificate_number": "1", "name": "营业执照", "issued_on": "2019-01-01"},
        "attributes": {"registered_on": "2019-01-01", "registered_capital": {"amount": "500.50", "currency": "CNY"}},
    }  # fmt: skip
    sent = hall.send({"answer": hall.ask(applicant=code)["answer"], **licence})
    assert sent.status_code == 201, sent.text
    done = verified(sent.json()["deposit"])
    assert done["state"] == "held", done
    with store.connect() as connection:
        row = connection.execute(
            sa.text("SELECT source, observations, conflicting FROM holding WHERE key = decode(:key, 'hex')"),
            {"key": done["holding"]},
        ).one()
        said = connection.scalar(
            sa.text("SELECT document FROM observation WHERE source = 'hub-deposits-business-licence'")
        )
    assert tuple(row) == ("sh-amr-enterprises", 2, True)
    assert said["attributes"]["registered_capital"] == {"amount": "500.5000", "currency": "CNY"}
    assert hall.session.get(f"{hall.base}/v1/deposits/{done['deposit']}", timeout=30).json()["state"] == "held"
    assert done["overruled"] is None

    # One that is newer than what the register knows: the register counts, and the deposit is not told as held.
    newer = {**licence, "envelope": {"certificate_number": "1", "issued_on": "2026-01-05"}}
    sent = hall.send({"answer": hall.ask(applicant=code)["answer"], **newer}, key="key-00000002")
    later = verified(sent.json()["deposit"])
    assert (later["state"], later["holding"], later["reasons"]) == ("overruled", None, [deposits.OTHER_WORD])
    told = hall.session.get(
        f"{hall.base}/v1/deposits/{later['deposit']}", headers={"Accept-Language": "zh"}, timeout=30
    ).json()["overruled"]
    assert (told["source"], told["owner"]) == ("sh-amr-enterprises", "上海市市场监督管理局")
    assert told["fields"] == [{"field": "issued_on", "counts": "2019-02-11", "deposit": "2026-01-05"}]
    assert "校核" in told["advice"] and "issued_on" in told["advice"]
    with store.connect() as connection:
        assert [one.id for one in deposits.listed(connection, "overruled")] == [uuid.UUID(later["deposit"])]
    rejected(later["deposit"])
    with store.connect() as connection:
        assert deposits.get(connection, done["deposit"]).standing == "held"


def test_what_the_gate_keeps_back_says_why_and_can_be_released(store: sa.Engine, hall: Hall) -> None:
    given = hall.hand_in({**PREMISES, "envelope": {"certificate_number": "-"}})  # reads as nothing
    kept = verified(given["deposit"])
    assert kept["state"] == "verified" and kept["reasons"] == ["natural-key-missing"], kept
    with store.connect() as connection:
        [entry] = quarantine.listed(connection, source="hub-deposits-premises-proof")
    assert disposition(hall.ask(), "premises") == "submit"
    assert review.reject([entry.id], actor="clerk") == 1


def test_cut_off_between_decision_and_merge_it_is_finished(
    store: sa.Engine, hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = hall.hand_in(PREMISES)
    with monkeypatch.context() as patch:
        patch.setattr("hub.pipeline.run", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            verified(given["deposit"])
    assert list(home.current().work.glob("deposits-*")) == []
    assert verified(given["deposit"])["state"] == "held"
    assert count(store, "decision") == 1


def test_of_what_changes_quickly_a_paper_counts_briefly() -> None:
    document = {"deposit": "d", "envelope": {"certificate_number": "1"}, "holders": {}, "attributes": {}}
    at = dt.datetime(2026, 11, 23, 20, tzinfo=dt.UTC)  # the 24th in China
    marriage = deposit_review._line(model.load("marriage-certificate"), document, "verified", at)
    assert marriage["valid_to"] == "2026-11-26"
    assert "valid_to" not in deposit_review._line(model.load("degree-certificate"), document, "verified", at)
    shorter = {**document, "envelope": {"valid_to": "2026-11-25"}}
    assert deposit_review._line(model.load("marriage-certificate"), shorter, "verified", at)["valid_to"] == "2026-11-25"


def test_what_is_missing_in_the_landing_zone_is_seen(store: sa.Engine, hall: Hall) -> None:
    given = hall.hand_in(PREMISES)
    with store.connect() as connection:
        row = deposits.get(connection, given["deposit"])
    zone = Landing(home.current().landing_url).zone
    zone.remove_file(row.file)
    zone.remove_file(row.landed)
    [difference] = verify.verify(store).differences
    assert (difference.code, set(difference.keys)) == ("landing-file-missing", {row.file, row.landed})


@pytest.mark.slow
def test_a_rebuild_knows_deposits_and_decisions(store: sa.Engine, hall: Hall, tmp_path: Path) -> None:
    held = hall.hand_in(PREMISES)["deposit"]
    waiting = hall.hand_in({**PREMISES, "envelope": {"certificate_number": "L-2"}}, "key-00000002")["deposit"]
    withdrawn = hall.hand_in({**PREMISES, "envelope": {"certificate_number": "L-3"}}, "key-00000003")["deposit"]
    refused = hall.hand_in({**PREMISES, "envelope": {"certificate_number": "L-4"}}, "key-00000004")["deposit"]
    copy = hall.hand_in(PREMISES, "key-00000005")["deposit"]
    for one in (held, withdrawn, copy):
        verified(one)
    for one in (withdrawn, refused, copy):
        rejected(one, note="no")

    def everything(engine: sa.Engine) -> tuple[dict[str, str], list[Any]]:
        with state.snapshot(engine) as connection:
            digest = state.digest(connection)
        with engine.connect() as connection:
            table = "SELECT d.*, l.holding FROM deposit AS d " + deposits.LEDGER + " ORDER BY d.id"
            return digest, [tuple(row) for row in connection.execute(sa.text(table))]

    answer = hall.ask(ITEMS[1])
    [found] = next(one["holdings"] for one in answer["requirements"] if one["requirement"] == "premises")
    fetched = hall.session.get(
        f"{hall.base}/v1/evidence/{found['holding']}", headers={"Yici-Grant": answer["answer"]}, timeout=30
    )
    assert fetched.status_code == 200, fetched.text
    before = everything(store)
    shutil.rmtree(home.current().path / "sources")  # made anew from the model
    fresh = store.url.set(database=f"{store.url.database}_fresh")
    try:
        done = rebuild.rebuild(fresh.render_as_string(hide_password=False))
        assert done.other == []
        engine = sa.create_engine(fresh, poolclass=sa.NullPool)
        assert everything(engine) == before
        assert (done.carried or {})["evidence"] == count(engine, "evidence") == 1
        with engine.connect() as connection:
            states = {one: deposits.get(connection, one).standing for one in (held, waiting, withdrawn, refused)}
        assert states == {held: "held", waiting: "waiting", withdrawn: "rejected", refused: "rejected"}
    finally:
        database.engine().dispose()
        with sa.create_engine(store.url.set(database="postgres"), isolation_level="AUTOCOMMIT").connect() as admin:
            admin.execute(sa.text(f"DROP DATABASE IF EXISTS {fresh.database} WITH (FORCE)"))


def agreed_anew(hall: Hall, *purposes: str, deposits: Any = tuple(MATERIALS), items: Any = tuple(ITEMS)) -> None:
    secret = agreements.add("hall-1", None, "hall-1", items, purposes or ["handle"], deposits=deposits, replace=True)
    token = hall.session.post(f"{hall.base}/oauth2/token", data=FORM, auth=("hall-1", secret), timeout=30).json()
    hall.session.headers["Authorization"] = f"Bearer {token['access_token']}"


def test_an_agreement_of_today_takes_nothing_new_under_an_answer_of_before(store: sa.Engine, hall: Hall) -> None:
    answer = hall.ask()["answer"]
    given = hall.send({"answer": answer, **PREMISES})
    assert given.status_code == 201, given.text
    agreed_anew(hall)
    problem(hall.send({"answer": answer, **PREMISES}, key="key-00000002"), 403, "answer-outdated")
    again = hall.send({"answer": answer, **PREMISES})
    assert (again.status_code, again.json()) == (200, given.json()), "a repetition of what was received"
    assert hall.send({"answer": hall.ask()["answer"], **PREMISES}, key="key-00000002").status_code == 201
    assert count(store) == 2


def test_a_deposit_is_shown_as_far_as_the_agreement_names_it(store: sa.Engine, hall: Hall) -> None:
    path = f"{hall.base}/v1/deposits/{hall.hand_in(PREMISES)['deposit']}"
    agreed_anew(hall)
    assert hall.session.get(path, timeout=30).status_code == 200
    agreed_anew(hall, items=ITEMS[1:])
    problem(hall.session.get(path, timeout=30), 403, "item-not-agreed")
    agreed_anew(hall, "check")
    problem(hall.session.get(path, timeout=30), 403, "purpose-not-agreed")
    agreed_anew(hall, deposits=MATERIALS[1:])
    problem(hall.session.get(path, timeout=30), 403, "deposit-not-agreed")
    agreed_anew(hall)
    assert hall.session.get(path, timeout=30).status_code == 200


def test_another_client_of_the_same_name_hands_in_under_its_own_answers(store: sa.Engine, hall: Hall) -> None:
    answer = hall.ask()["answer"]
    deposit = hall.hand_in(PREMISES)["deposit"]
    agreements.remove("hall-1")
    agreed_anew(hall)
    problem(hall.send({"answer": answer, **PREMISES}, key="key-00000002"), 404, "answer-unknown")
    problem(hall.session.get(f"{hall.base}/v1/deposits/{deposit}", timeout=30), 404, "deposit-unknown")


def test_a_key_names_nobody(store: sa.Engine, hall: Hall) -> None:
    said = {"answer": hall.ask()["answer"], **PREMISES}
    for place, key in enumerate(
        ("2026-00004", "260000004", "5cf3e90d-7a11-4c43-8c1d-310115491231", "310115202611300001")
    ):
        assert hall.send(said, papers.PNG + bytes([place]), key=key).status_code == 201, key
    for key in (stored.LICENCE_CODE, f"x-{stored.LICENCE_CODE[:8]}-{stored.LICENCE_CODE[8:]}", stored.RESIDENT):
        found = problem(hall.send(said, key=key), 422, "idempotency-key-invalid")
        assert "UUID" in found["detail"]
