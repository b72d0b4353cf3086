"""``yici ledger verify``: whatever is done to the ledger behind the hub's back is found, and where."""

from __future__ import annotations

import datetime as dt
import re
import threading
import time
import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from hub.exchange import checkpoints, entries, ledger, ledger_verify, witnesses
from hub.exchange.ledger_verify import Report
from hub.exchange.witnesses import Told
from hub.home import Home
from hub.schema_exchange import exchange_chain, exchange_checkpoint, exchange_record
from tests import ledgers
from tests.ledgers import Kept

COUNT = 12  # records; signed after each fourth


@pytest.fixture(scope="module")
def kept(server_home: Home, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    with ledgers.kept(server_home, template, tmp_path_factory.mktemp("hubs"), COUNT) as found:
        yield found


@pytest.fixture
def hub(kept: Kept) -> sa.Engine:
    """The hub ``sh`` with the ledger as it was."""
    kept.restore()
    return kept.engine


@pytest.fixture
def made(kept: Kept) -> list[uuid.UUID]:
    """The ids of :data:`COUNT` records exchanged with ``zj``, in order."""
    return kept.made


def found(hub: sa.Engine, piece: int = ledger_verify.PIECE) -> dict[str, tuple[int, tuple[str, ...]]]:
    report = ledger_verify.verify(hub, ask=(), piece=piece)
    for one in report.differences:
        assert one.sentence() and one.advice(), one.code
    return {one.code: (one.found, one.keys) for one in report.differences}


@pytest.mark.parametrize("piece", [1, 3, 5, 100])
def test_nothing_was_changed(hub: sa.Engine, made: list[uuid.UUID], piece: int) -> None:
    report = ledger_verify.verify(hub, ask=(), piece=piece)
    assert report.ok, report.shown()
    assert (report.first, report.last, report.records, report.checkpoints, report.pending) == (1, 12, 12, 3, 0)


def test_an_empty_ledger_is_sound(hub: sa.Engine) -> None:
    ledgers.changed(hub, *(f"DELETE FROM {table}" for table in ledgers.TABLES[:-1]))
    ledgers.changed(hub, "UPDATE exchange_head SET position = 0, chain = decode(repeat('00', 32), 'hex')")
    report = ledger_verify.verify(hub, ask=())
    assert report.ok and (report.first, report.last, report.records) == (1, 0, 0)


def test_what_waits_is_no_difference_until_it_waits_for_long(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    ledgers.plain(hub, 2)
    report = ledger_verify.verify(hub, ask=())
    assert report.ok and report.pending == 2
    ledgers.changed(
        hub,
        "UPDATE exchange_record SET recorded_at = recorded_at - interval '11 minutes' WHERE id IN (SELECT record FROM exchange_pending)",
        "UPDATE exchange_pending SET recorded_at = recorded_at - interval '11 minutes'",
    )
    assert found(hub)["chain-pending-old"][0] == 2


# What each column is changed to: nothing that was written may be changed unnoticed.
ALTERED = {
    "id": "overlay(id::text placing '00000000-0000-7000-8000-000000000000' from 1)::uuid",
    "recorded_at": "recorded_at + interval '1 microsecond'",
    "peer": "'ah'",
    "direction": "CASE direction WHEN 'asked' THEN 'answered' ELSE 'asked' END",
    "message": "'00000000-0000-7000-8000-000000000000'",
    "kind": "'evidence.request'",
    "agreement": "'6f1c2c52-2f6a-4f5e-9d0e-1f2a3b4c5d6e/1'",
    "outcome": "'agreement-unknown'",
    "detail": """'{"entries": 0}'""",
    "request": "request || 'x'",
    "reply": "NULL",
}


@pytest.mark.parametrize("column", [column.name for column in exchange_record.columns])
def test_an_altered_record_is_found(hub: sa.Engine, made: list[uuid.UUID], column: str) -> None:
    ledgers.changed(hub, f"UPDATE exchange_record SET {column} = {ALTERED[column]} WHERE id = '{made[6]}'")
    differences = found(hub)
    if column == "id":
        assert differences["chain-record-removed"] == (1, (f"{made[6]} at 7",))
        assert differences["chain-record-added"][0] == 1
    else:
        assert differences == {"chain-record-altered": (1, (f"{made[6]} at 7",))}


PLACES = {
    "position": "13",
    "recorded_at": "recorded_at + interval '1 microsecond'",
    "record": "'00000000-0000-7000-8000-000000000000'",
    "entry": "sha256(entry)",
    "chain": "sha256(chain)",
}


@pytest.mark.parametrize("column", [column.name for column in exchange_chain.columns])
def test_an_altered_place_is_found(hub: sa.Engine, made: list[uuid.UUID], column: str) -> None:
    ledgers.changed(hub, f"UPDATE exchange_chain SET {column} = {PLACES[column]} WHERE position = 7")
    differences = found(hub)
    expected = {
        "position": "chain-place-missing", "recorded_at": "chain-place-altered", "record": "chain-record-removed",
        "entry": "chain-record-altered", "chain": "chain-link-broken",
    }[column]  # fmt: skip
    assert expected in differences
    assert "7" in " ".join(differences[expected][1])


SIGNED = {
    "hub": "'ah'",
    "position": "7",
    "chain": "sha256(chain)",
    "signed_at": "signed_at + interval '1 second'",
    "signature": "translate(signature, 'ABCDEFGH', 'BCDEFGHA')",
}


@pytest.mark.parametrize("column", [column.name for column in exchange_checkpoint.columns])
def test_an_altered_checkpoint_is_found(hub: sa.Engine, made: list[uuid.UUID], column: str) -> None:
    ledgers.changed(hub, f"UPDATE exchange_checkpoint SET {column} = {SIGNED[column]} WHERE position = 8")
    differences = found(hub)
    assert differences.keys() & {"chain-checkpoint-signature", "chain-witness-altered"}, differences
    assert ("chain-checkpoint-differs" in differences) == (column in ("position", "chain"))


def test_a_checkpoint_of_another_ledger_is_no_checkpoint(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    """One that this hub did sign, put in the place of another."""
    ledgers.changed(
        hub,
        """UPDATE exchange_checkpoint AS k SET signature = o.signature, signed_at = o.signed_at
        FROM exchange_checkpoint AS o WHERE k.position = 8 AND o.position = 4""",
    )
    assert found(hub) == {"chain-checkpoint-signature": (1, ("sh: position 8",))}


def test_a_removed_record_is_found(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    ledgers.changed(hub, f"DELETE FROM exchange_record WHERE id = '{made[2]}'")
    assert found(hub) == {"chain-record-removed": (1, (f"{made[2]} at 3",))}


def test_a_removed_place_is_found(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    ledgers.changed(hub, "DELETE FROM exchange_chain WHERE position IN (5, 6)")
    differences = found(hub)
    assert differences["chain-place-missing"] == (1, ("positions 5-6",))
    assert differences["chain-record-added"] == (2, (f"{made[4]}", f"{made[5]}"))


def test_a_record_removed_with_its_place_is_found(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    ledgers.changed(
        hub, "DELETE FROM exchange_chain WHERE position = 4", f"DELETE FROM exchange_record WHERE id = '{made[3]}'"
    )
    differences = found(hub)
    assert differences["chain-place-missing"] == (1, ("positions 4-4",))
    assert differences["chain-checkpoint-differs"] == (1, ("position 4",))


def test_a_gap_that_was_closed_is_found(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    ledgers.changed(
        hub,
        "DELETE FROM exchange_chain WHERE position = 5",
        f"DELETE FROM exchange_record WHERE id = '{made[4]}'",
        "UPDATE exchange_chain SET position = position - 1 WHERE position > 5",
        "UPDATE exchange_head SET position = 11",
    )
    differences = found(hub)
    assert differences["chain-link-broken"] == (1, (f"{made[5]} at 5",))
    assert differences["chain-checkpoint-differs"][0] == 2


def test_swapped_records_are_found(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    """Contents, or places: either way each stands where the other was."""
    ledgers.changed(hub, "UPDATE exchange_chain SET position = 11 - position WHERE position IN (5, 6)")
    assert found(hub)["chain-link-broken"][0] == 3
    ledgers.changed(
        hub,
        """UPDATE exchange_chain AS c SET chain = o.chain FROM exchange_chain AS o
        WHERE c.position IN (5, 6) AND o.position = 11 - c.position""",
    )
    assert found(hub)["chain-link-broken"][0] >= 1


def test_a_record_that_was_put_in_is_found(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    ledgers.changed(
        hub,
        f"""INSERT INTO exchange_record SELECT '{uuid.UUID(int=made[5].int + 1)}', recorded_at, 'ah', direction, message,
        kind, agreement, outcome, detail, request, reply FROM exchange_record WHERE id = '{made[5]}'""",
    )
    assert found(hub) == {"chain-record-added": (1, (str(uuid.UUID(int=made[5].int + 1)),))}


def test_a_record_put_in_with_a_place_is_found(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    """With the links up to the end of the chain made anew, by who has no key."""
    ledgers.changed(
        hub,
        "UPDATE exchange_chain SET position = position + 1 WHERE position > 9",
        f"""INSERT INTO exchange_record SELECT '{uuid.UUID(int=made[8].int + 1)}', recorded_at, 'ah', direction, message,
        kind, agreement, outcome, detail, request, reply FROM exchange_record WHERE id = '{made[8]}'""",
        f"""INSERT INTO exchange_chain SELECT 10, recorded_at, id, {entries.digest("r")}, '' FROM exchange_record AS r
        WHERE id = '{uuid.UUID(int=made[8].int + 1)}'""",
        """UPDATE exchange_chain AS c SET chain = w.chain FROM (
          SELECT position, chained(entry, decode(repeat('00', 32), 'hex')) OVER (ORDER BY position) AS chain FROM exchange_chain
        ) AS w WHERE w.position = c.position""",
        "UPDATE exchange_head SET position = 13, chain = (SELECT chain FROM exchange_chain WHERE position = 13)",
    )
    assert found(hub) == {
        "chain-checkpoint-differs": (1, ("position 12",)), "chain-end-unsigned": (1, ("positions 13-13",)),
    }  # fmt: skip


def test_a_second_place_is_found(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    ledgers.changed(
        hub, f"INSERT INTO exchange_pending SELECT id, recorded_at FROM exchange_record WHERE id = '{made[1]}'"
    )
    assert found(hub) == {"chain-record-twice": (1, (f"{made[1]} at 2",))}
    ledger.chain(hub)
    assert found(hub) == {"chain-record-twice": (1, (f"{made[1]} at 13",))}


def test_one_position_twice_is_found(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    ledgers.changed(
        hub,
        """INSERT INTO exchange_chain SELECT 6, recorded_at + interval '1 second', record, entry, chain
        FROM exchange_chain WHERE position = 6""",
    )
    assert found(hub).keys() >= {"chain-link-broken", "chain-record-twice"}


CUT = (
    "DELETE FROM exchange_record WHERE id IN (SELECT record FROM exchange_chain WHERE position > 9)",
    "DELETE FROM exchange_chain WHERE position > 9",
)
HEAD = "UPDATE exchange_head SET (position, chain) = (SELECT position, chain FROM exchange_chain ORDER BY position DESC LIMIT 1)"


def test_a_cut_end_is_found(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    ledgers.changed(hub, *CUT)
    differences = found(hub)
    assert differences["chain-end-removed"] == (1, ("positions 10-12",))
    assert differences["chain-checkpoint-differs"] == (1, ("position 12",))


def test_an_end_cut_together_with_the_head_is_found(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    ledgers.changed(hub, *CUT, HEAD)
    assert found(hub) == {"chain-checkpoint-differs": (1, ("position 12",))}


def test_a_chain_that_was_put_back_stays_so_while_it_grows(
    hub: sa.Engine, made: list[uuid.UUID], caplog: pytest.LogCaptureFixture
) -> None:
    ledgers.changed(hub, *CUT, HEAD)
    ledgers.plain(hub, 2)
    ledger.chain(hub)
    assert "ledger-put-back" in caplog.text
    ledgers.plain(hub, 20)
    ledger.chain(hub)  # past what was signed: it is signed again
    assert found(hub) == {"chain-checkpoint-differs": (1, ("position 12",))}


@pytest.mark.parametrize("statement", [
    "DELETE FROM exchange_head", "UPDATE exchange_head SET position = 20", "UPDATE exchange_head SET chain = sha256(chain)",
    "UPDATE exchange_head SET position = 3",
])  # fmt: skip
def test_an_altered_head_is_found(hub: sa.Engine, made: list[uuid.UUID], statement: str) -> None:
    ledgers.changed(hub, statement)
    assert found(hub).keys() & {"chain-end-removed", "chain-end-altered"}


def test_a_removed_beginning_is_found(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    removed = (
        "DELETE FROM exchange_record WHERE id IN (SELECT record FROM exchange_chain WHERE position <= 4)",
        "DELETE FROM exchange_chain WHERE position <= 4",
    )
    ledgers.changed(hub, *removed)  # a checkpoint stands there, but no retention drops what is so new
    assert found(hub) == {"chain-start-early": (1, ("position 4",))}
    ledgers.changed(hub, "DELETE FROM exchange_checkpoint WHERE position = 4")
    assert "chain-start-unproved" in found(hub)


def test_a_ledger_that_is_gone_is_found(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    ledgers.changed(hub, "DELETE FROM exchange_record", "DELETE FROM exchange_chain")
    assert found(hub).keys() == {"chain-start-early"}
    ledgers.changed(hub, "UPDATE exchange_head SET position = 0, chain = decode(repeat('00', 32), 'hex')")
    ((code, (count, named)),) = found(hub).items()
    assert (code, count, set(named)) == ("chain-checkpoint-differs", 3, {"position 4", "position 8", "position 12"})


# --- by who has the key


def witnessed(hub: sa.Engine) -> Told:
    """What ``zj`` would say now: all it has heard."""
    told = Told("zj")
    with hub.connect() as connection:
        for row in connection.execute(sa.text("SELECT position, chain FROM exchange_checkpoint WHERE hub = 'sh'")):
            told.checkpoints[row.position] = row.chain
    return told


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> dict[str, Told]:
    """What peers say when they are asked."""
    told: dict[str, Told] = {}
    monkeypatch.setattr(witnesses, "ask", lambda name, after=0: told[name])
    return told


def asked(hub: sa.Engine) -> Report:
    return ledger_verify.verify(hub)


def test_a_chain_written_anew_and_signed_again_is_found_through_a_peer(
    hub: sa.Engine, made: list[uuid.UUID], answering: dict[str, Told]
) -> None:
    answering["zj"] = witnessed(hub)
    assert asked(hub).ok
    ledgers.changed(hub, f"UPDATE exchange_record SET outcome = 'internal' WHERE id = '{made[6]}'")
    ledgers.written_anew(hub)
    assert found(hub) == {}, "nothing in the store tells: whoever did this had the key"
    [difference] = asked(hub).differences
    assert (difference.code, difference.found) == ("chain-witness-differs", 2)
    assert difference.keys == ("zj: positions 5-8",), "after the last position at which both agree"


def test_an_end_cut_with_all_its_signatures_is_found_through_a_peer(
    hub: sa.Engine, made: list[uuid.UUID], answering: dict[str, Told]
) -> None:
    answering["zj"] = witnessed(hub)
    ledgers.changed(hub, *(part.replace("> 9", "> 8") for part in CUT), HEAD)
    ledgers.changed(hub, "DELETE FROM exchange_checkpoint WHERE position > 8")
    assert found(hub) == {}, "it ends where this hub did sign"
    [difference] = asked(hub).differences
    assert (difference.code, difference.keys) == ("chain-witness-differs", ("zj: positions 9-12",))


def test_an_end_that_nobody_signed_is_found_without_a_peer(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    """By who has the store and not the key: cut to where it was not signed, written anew, or all signatures taken away."""
    ledgers.changed(hub, *CUT, HEAD, "DELETE FROM exchange_checkpoint WHERE position > 9")
    assert found(hub) == {"chain-end-unsigned": (1, ("positions 9-9",))}
    ledgers.changed(hub, "DELETE FROM exchange_checkpoint")
    assert found(hub) == {"chain-end-unsigned": (9, ("positions 1-9",))}


def test_records_chained_anew_after_their_signatures_were_removed_are_found(
    hub: sa.Engine, made: list[uuid.UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "sign", lambda *_: None)  # the key is not there
    ledgers.changed(hub, f"UPDATE exchange_record SET outcome = 'internal' WHERE id = '{made[6]}'")
    ledgers.written_anew(hub)
    assert found(hub) == {"chain-end-unsigned": (12, ("positions 1-12",))}


def test_a_checkpoint_that_this_hub_did_not_sign_signs_no_end(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    ledgers.changed(hub, f"UPDATE exchange_checkpoint SET signature = {SIGNED['signature']} WHERE position = 12")
    assert found(hub) == {
        "chain-checkpoint-signature": (1, ("sh: position 12",)), "chain-end-unsigned": (4, ("positions 9-12",)),
    }  # fmt: skip


def test_what_a_peer_cannot_or_does_not_say_rightly(
    hub: sa.Engine, made: list[uuid.UUID], answering: dict[str, Told]
) -> None:
    assert not ledger_verify.verify(hub, ask=()).complete, "nobody was asked"
    answering["zj"] = witnessed(hub)
    assert asked(hub).complete
    answering["zj"] = Told("zj", why="partner-away", sentence="zj does not answer")
    report = asked(hub)
    assert report.ok and not report.complete and not report.shown()["complete"]
    assert report.shown()["witnesses"] == [
        {
            "peer": "zj", "asked": False, "checkpoints": 0, "first": None, "latest": None, "code": "partner-away",
            "message": "zj does not answer",
        }
    ]  # fmt: skip
    answering["zj"] = Told("zj", false=3)
    [difference] = asked(hub).differences
    assert (difference.code, difference.found, difference.keys) == ("chain-peer-false", 3, ("zj",))


def test_beside_traffic(hub: sa.Engine) -> None:
    """While records are written and chained, nothing is found that is not there."""
    ended = threading.Event()

    def work() -> None:
        number = COUNT
        while not ended.is_set():
            ledgers.plain(hub, 3, number)
            ledger.chain(hub, wait=False)
            number += 3
            time.sleep(0.01)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        reports = [ledger_verify.verify(hub, ask=(), piece=500) for _ in range(12)]
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert all(report.ok for report in reports), [report.shown() for report in reports if not report.ok]
    assert reports[-1].records > reports[0].records >= COUNT


def test_many_differences_are_counted_and_a_few_are_named(hub: sa.Engine) -> None:
    ledgers.many(hub, 5000)
    ledger.chain(hub)
    ledgers.changed(hub, "UPDATE exchange_record SET peer = 'ah' WHERE message::text < '8'")
    with hub.connect() as connection:
        altered = connection.scalar(sa.text("SELECT count(*) FROM exchange_record WHERE peer = 'ah'"))
    [difference] = ledger_verify.verify(hub, ask=(), piece=700).differences
    assert (difference.code, difference.found, len(difference.keys)) == ("chain-record-altered", altered, 5)
    assert all(re.fullmatch(r"[0-9a-f-]{36} at \d+", key) for key in difference.keys)


def test_it_reads_and_changes_nothing(hub: sa.Engine, made: list[uuid.UUID]) -> None:
    def state() -> list[object]:
        with hub.connect() as connection:
            return [
                connection.scalar(sa.text(f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {table} AS t"))
                for table in ("exchange_record", "exchange_chain", "exchange_checkpoint", "exchange_head")
            ]

    before = state()
    progress: list[str] = []
    report = ledger_verify.verify(hub, ask=(), progress=lambda check, done, total: progress.append(check))
    assert report.ok and state() == before
    assert list(dict.fromkeys(progress)) == ["chain", "records", "checkpoints"]
    assert report.at.tzinfo is not None and abs(report.at - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
