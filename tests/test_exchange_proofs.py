"""Proofs: a record and what was said, verified offline with the other hub's public key alone; whatever is changed is found."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from joserfc.jwk import OKPKey

from connectors import signature
from connectors.errors import FatalError, RetriableError, UsageError
from hub.exchange import checkpoints, entries, ledger, proofs
from hub.exchange.proofs import Checked, verify_proof
from hub.home import Home
from tests import examplepage, ledgers
from tests.conftest import ROOT
from tests.ledgers import Kept

COUNT = 6  # signed after the fourth, and at the end
ASKED, ANSWERED = 1, 2  # records: by this hub; by the other, whose records are even


@pytest.fixture(scope="module")
def kept(server_home: Home, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    with ledgers.kept(server_home, template, tmp_path_factory.mktemp("hubs"), COUNT) as found:
        yield found


@pytest.fixture
def hub(kept: Kept) -> sa.Engine:
    kept.restore()
    return kept.engine


@pytest.fixture
def sh(kept: Kept) -> OKPKey:
    """Public, as all that ``check`` is given."""
    return public(ledgers.key_of(kept.folder / "sh"))


@pytest.fixture
def zj(kept: Kept) -> OKPKey:
    return public(ledgers.key_of(kept.folder / "zj"))


def public(key: OKPKey) -> OKPKey:
    return signature.public_key(text(key))


def text(key: OKPKey) -> str:
    return str(key.as_dict(private=False)["x"])


def exported(hub: sa.Engine, named: uuid.UUID) -> dict[str, Any]:
    with hub.connect() as connection:
        proof = proofs.export(connection, str(named))
    return json.loads(json.dumps(proof))  # as a file holds it


def results(checked: Checked) -> dict[str, str]:
    return {check.code: check.result for check in checked.checks}


@pytest.mark.parametrize("number", range(COUNT))
def test_a_proof_holds_with_the_keys_of_both(hub: sa.Engine, kept: Kept, sh: OKPKey, zj: OKPKey, number: int) -> None:
    proof = exported(hub, kept.made[number])
    checked = verify_proof(proof, [sh, zj])
    assert checked.ok and checked.signed_by == ("sh", "zj")
    assert results(checked) == dict.fromkeys(
        ("proof-request-signed", "proof-reply-signed", "proof-reply-linked", "proof-record-agrees", "proof-chain-linked",
         "proof-checkpoint-signed"), "good",
    )  # fmt: skip
    assert all(check["message"] for check in checked.shown()["checks"])
    assert proof["chain"]["position"] == number + 1
    assert proof["checkpoint"]["position"] == (4 if number < 4 else COUNT)


def test_with_the_partners_key_alone_it_proves_what_the_partner_said(
    hub: sa.Engine, kept: Kept, sh: OKPKey, zj: OKPKey
) -> None:
    checked = verify_proof(exported(hub, kept.made[ASKED]), [zj])
    assert checked.ok and checked.signed_by == ("zj",)
    assert results(checked) == {
        "proof-request-signed": "unchecked",  # of sh, but bound by the reply to it
        "proof-reply-signed": "good",
        "proof-reply-linked": "good",
        "proof-record-agrees": "good",
        "proof-chain-linked": "unchecked",
        "proof-checkpoint-signed": "unchecked",
    }
    assert checked.needs == ("sh",) and not checked.shown()["complete"]
    answered = results(verify_proof(exported(hub, kept.made[ANSWERED]), [zj]))
    assert answered.pop("proof-request-signed") == "good"
    assert set(answered.values()) == {"unchecked"}, "all else could be what sh made up"


def test_with_the_owners_key_alone_it_proves_what_stood_in_its_ledger(hub: sa.Engine, kept: Kept, sh: OKPKey) -> None:
    checked = verify_proof(exported(hub, kept.made[ASKED]), [sh])
    assert checked.ok and checked.signed_by == ("sh",)
    assert results(checked) == {
        "proof-request-signed": "good",
        "proof-reply-signed": "unchecked",
        "proof-reply-linked": "unchecked",
        "proof-record-agrees": "good",
        "proof-chain-linked": "good",
        "proof-checkpoint-signed": "good",
    }
    assert checked.needs == ("zj",)


def test_what_was_made_up_around_one_true_signature_is_not_said_to_be_checked(
    hub: sa.Engine, kept: Kept, zj: OKPKey
) -> None:
    """The request is the partner's; reply, record, chain and checkpoint are of one piece, and invented by who has no key."""
    proof = exported(hub, kept.made[ANSWERED])

    def forged(sealed: str, **members: Any) -> str:
        header, _, end = sealed.split(".")
        said = {**proofs._payload(sealed), **members}
        return f"{header}.{examplepage.base64url(json.dumps(said).encode())}.{end}"

    body = b'{"entries":99}'
    record = proof["record"]
    record["reply"] = forged(record["reply"], digest=hashlib.sha256(body).hexdigest(), size=len(body))
    record["detail"] = '{"entries":99}'
    proof["chain"]["entries"] = []
    position, chain = proof["chain"]["position"], proofs._end(proof).hex()
    signed = forged(proof["checkpoint"]["signature"], position=position, chain=chain)
    proof["checkpoint"] |= {"position": position, "chain": chain, "signature": signed}
    checked = verify_proof(proof, [zj], body)
    found = results(checked)
    assert {code for code, result in found.items() if result == "good"} == {"proof-request-signed"}
    assert found["proof-reply-body"] == found["proof-chain-linked"] == "unchecked" and len(found) == 7
    assert checked.needs == ("sh",)
    for check in checked.shown()["checks"]:
        assert (check["needs"] == "sh") == ("not checked, needs the key of sh" in check["message"])
    assert not verify_proof(proof, [zj, public(ledgers.key_of(kept.folder / "sh"))], body).ok


def test_of_a_refusal_only_the_owner_says_why(hub: sa.Engine, kept: Kept, sh: OKPKey, zj: OKPKey) -> None:
    own, other = ledgers.key_of(kept.folder / "sh"), ledgers.key_of(kept.folder / "zj")
    with hub.begin() as connection:
        refused = ledgers.exchanged(connection, own, other, 7, outcome="agreement-suspended")
    ledger.chain(hub)
    for keys, result in (([zj], "unchecked"), ([sh], "good"), ([sh, zj], "good")):
        assert results(verify_proof(exported(hub, refused), keys))["proof-record-agrees"] == result


def test_a_body_that_two_envelopes_name_is_that_of_the_one_that_is_proved(
    hub: sa.Engine, kept: Kept, sh: OKPKey, zj: OKPKey
) -> None:
    own, other = ledgers.key_of(kept.folder / "sh"), ledgers.key_of(kept.folder / "zj")
    with hub.begin() as connection:
        request = ledgers.said("zj", "sh", other, b"{}")
        named = entries.record(
            connection, peer="zj", direction="answered", message=request.envelope.id, kind=ledgers.KIND, outcome="ok",
            request=request, reply=ledgers.said("sh", "zj", own, b"{}", request),
        )  # fmt: skip
    ledger.chain(hub)
    proof = exported(hub, named)
    assert results(verify_proof(proof, [zj], b"{}"))["proof-request-body"] == "good"
    assert results(verify_proof(proof, [sh], b"{}"))["proof-request-body"] == "good", "bound by the reply"


def test_with_a_strangers_key_it_proves_nothing(hub: sa.Engine, kept: Kept) -> None:
    for keys in ([public(examplepage.key())], []):
        checked = verify_proof(exported(hub, kept.made[ASKED]), keys)
        assert not checked.ok and checked.signed_by == ()
        assert results(checked)["proof-nothing-signed"] == "bad"


def test_the_body_is_compared(hub: sa.Engine, kept: Kept, zj: OKPKey) -> None:
    proof = exported(hub, kept.made[ASKED])
    for body, code, result in (
        (b'{"after":1}', "proof-request-body", "good"),
        (b'{"entries":1}', "proof-reply-body", "good"),
        (b'{"entries":2}', "proof-body-differs", "bad"),
        (b"", "proof-body-differs", "bad"),
    ):
        checked = verify_proof(proof, [zj], body)
        assert (results(checked).get(code), checked.ok) == (result, result == "good")


Change = Callable[[dict[str, Any]], None]


def _set(*path: str | int, to: Any) -> Change:
    def change(proof: dict[str, Any]) -> None:
        place: Any = proof
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = to(place[path[-1]]) if callable(to) else to

    return change


def _flipped(value: str) -> str:
    """Another character in the middle."""
    middle = len(value) // 2
    return value[:middle] + ("A" if value[middle] != "A" else "B") + value[middle + 1 :]


CHANGES: dict[str, Change] = {
    **{f"record-{name}": _set("record", name, to=lambda value: (value or "") + "0") for name in entries.FIELDS},
    "request": _set("record", "request", to=_flipped),
    "reply": _set("record", "reply", to=_flipped),
    "no-reply": _set("record", "reply", to=None),
    "no-request": _set("record", "request", to=None),
    "hub": _set("hub", to="ah"),
    "position": _set("chain", "position", to=lambda position: position + 1),
    "before": _set("chain", "before", to="00" * 31 + "01"),
    "an-entry": _set("chain", "entries", 0, to="00" * 32),
    "fewer-entries": _set("chain", "entries", to=lambda found: found[1:]),
    "more-entries": _set("chain", "entries", to=lambda found: [*found, "00" * 32]),
    "checkpoint-position": _set("checkpoint", "position", to=3),
    "checkpoint-chain": _set("checkpoint", "chain", to="00" * 32),
    "checkpoint-at": _set("checkpoint", "at", to="2026-01-01T00:00:00.000000Z"),
    "checkpoint-signature": _set("checkpoint", "signature", to=_flipped),
    "protocol": _set("protocol", to="yici-proof/2"),
    "record": _set("record", to={}),
    "no-chain": lambda proof: proof.pop("chain"),
    "chain": _set("chain", to=7),
    "entries": _set("chain", "entries", to="ab"),
    "odd": _set("record", "peer", to=7),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_changed_is_found(hub: sa.Engine, kept: Kept, sh: OKPKey, zj: OKPKey, change: str) -> None:
    whole = exported(hub, kept.made[ASKED])
    proof = copy.deepcopy(whole)
    CHANGES[change](proof)
    assert proof != whole
    try:
        assert not verify_proof(proof, [sh, zj]).ok
    except FatalError as refused:
        assert refused.code == "proof-form"


def test_envelopes_of_another_exchange_prove_nothing_about_this_one(
    hub: sa.Engine, kept: Kept, sh: OKPKey, zj: OKPKey
) -> None:
    """All of it signed, but not by this record: by who has the owner's key, even its place made anew."""
    proof, other = exported(hub, kept.made[ASKED]), exported(hub, kept.made[ASKED + 2])
    proof["record"]["reply"] = other["record"]["reply"]
    chain = proofs._end({**proof, "chain": {**proof["chain"], "entries": []}})
    own = ledgers.key_of(kept.folder / "sh")
    at = checkpoints.read(proof["checkpoint"]["signature"], "sh").at
    proof["chain"]["entries"] = []
    proof["checkpoint"] = checkpoints.made("sh", 2, chain, at, own).told()
    checked = verify_proof(proof, [sh, zj])
    assert not checked.ok
    assert {code for code, result in results(checked).items() if result == "bad"} == {"proof-reply-linked"}


def test_a_record_that_tells_another_story_than_its_envelopes(
    hub: sa.Engine, kept: Kept, sh: OKPKey, zj: OKPKey
) -> None:
    """By who has the owner's key: the ledger's own story is not the partner's."""
    for change in ("agreement", "kind", "peer"):
        kept.restore()
        ledgers.changed(hub, f"UPDATE exchange_record SET {change} = 'other' WHERE id = '{kept.made[ASKED]}'")
        ledgers.written_anew(hub)
        checked = verify_proof(exported(hub, kept.made[ASKED]), [sh, zj])
        assert {code for code, result in results(checked).items() if result == "bad"} == {"proof-record-agrees"}


def test_a_refusal_is_proved_too(hub: sa.Engine, kept: Kept, sh: OKPKey, zj: OKPKey) -> None:
    own, other = ledgers.key_of(kept.folder / "sh"), ledgers.key_of(kept.folder / "zj")
    with hub.begin() as connection:
        refused = ledgers.exchanged(connection, own, other, 7, outcome="agreement-suspended")
        silent = entries.record(
            connection, peer="zj", direction="asked", kind="index.page", outcome="partner-away",
            request=ledgers.said("sh", "zj", own, b"{}"),
        )  # fmt: skip
    ledger.chain(hub)
    checked = verify_proof(exported(hub, refused), [zj])
    assert checked.ok and checked.record["outcome"] == "agreement-suspended"
    checked = verify_proof(exported(hub, silent), [sh])
    assert checked.ok and "proof-reply-signed" not in results(checked)
    assert not verify_proof(exported(hub, silent), [zj]).ok, "the partner said nothing"


def test_one_key_does_not_speak_for_two_hubs(hub: sa.Engine, kept: Kept) -> None:
    own = ledgers.key_of(kept.folder / "sh")
    with hub.begin() as connection:
        named = ledgers.exchanged(connection, own, own, 9)
    ledger.chain(hub)
    checked = verify_proof(exported(hub, named), [public(own)])
    assert not checked.ok and results(checked)["proof-key-shared"] == "bad"


def test_what_is_not_signed_yet_or_was_altered_is_not_exported(hub: sa.Engine, kept: Kept) -> None:
    with hub.begin() as connection:
        waiting = entries.record(connection, peer="zj", direction="asked", kind="index.page", outcome="ok")
    for named, code, kind in (
        (waiting, "record-not-signed", RetriableError),
        (uuid.uuid4(), "record-unknown", UsageError),
        ("x", "record-unknown", UsageError),
    ):
        with pytest.raises(kind) as refused:
            exported(hub, named)  # type: ignore[arg-type]
        assert refused.value.code == code
    ledgers.changed(hub, f"UPDATE exchange_record SET outcome = 'internal' WHERE id = '{kept.made[2]}'")
    with pytest.raises(FatalError) as altered:
        exported(hub, kept.made[2])
    assert altered.value.code == "record-altered" and altered.value.values["position"] == 3


def test_a_record_is_found_by_its_message_too(hub: sa.Engine, kept: Kept) -> None:
    proof = exported(hub, kept.made[3])
    assert exported(hub, uuid.UUID(proof["record"]["message"])) == proof


def test_it_is_checked_where_there_is_no_hub(hub: sa.Engine, kept: Kept, zj: OKPKey, tmp_path: Path) -> None:
    """As an auditor does: another machine, no home, no store, no network."""
    file, body = tmp_path / "proof.json", tmp_path / "body.json"
    file.write_text(json.dumps(exported(hub, kept.made[ASKED])), encoding="utf-8")
    body.write_bytes(b'{"entries":1}')
    environment = {name: value for name, value in os.environ.items() if not name.startswith("YICI_")}
    environment |= {"YICI_HOME": str(tmp_path / "none"), "YICI_DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    command = [
        sys.executable,
        "-m",
        "hub",
        "ledger",
        "check",
        str(file),
        "--key",
        text(zj),
        "--body",
        str(body),
        "--json",
    ]
    alone = ["unshare", "--net"]  # a network of its own, where nothing can be reached, if this machine lets us
    if shutil.which("unshare") and subprocess.run([*alone, "true"], capture_output=True).returncode == 0:
        command = [*alone, *command]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["ok"] and shown["signed_by"] == ["zj"]
    assert not (tmp_path / "none").exists()


def test_a_question_whose_envelope_was_not_kept_is_told_of_by_the_reply() -> None:
    """It had members that are not known here."""
    reply = {"from": "sh", "to": "zj", "kind": "peer.check", "status": "ok", "reply_to": "7", "agreement": "a/1"}
    record = {
        "outcome": "ok",
        "direction": "answered",
        "peer": "zj",
        "kind": "peer.check",
        "message": "7",
        "agreement": "a/1",
    }
    assert proofs._agrees("sh", record, {"reply": reply})
    for wrong in ({"reply_to": "8"}, {"agreement": None}, {"status": "internal"}, {"to": "js"}):
        assert not proofs._agrees("sh", record, {"reply": {**reply, **wrong}})
