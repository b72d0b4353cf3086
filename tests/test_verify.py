"""``yici verify``: an untouched store passes, and every way in which it can be wrong is found and named."""

from __future__ import annotations

import datetime as dt
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors import messages
from connectors.errors import FatalError
from connectors.landing import Landing
from hub import home, identity_decisions, journal, pipeline, state, verify, verify_sql
from hub.cli import app
from hub.standing import KEPT_DIGEST
from tests import licences, linked, partner, stored
from tests.linked import Said

SH = "sh-amr-enterprises"
RECORDS = [*licences.rows(6), licences.row(7, code=licences.credit_code(7)[:-1] + "?"), licences.row(8, capital="#元")]
ONE = "(SELECT min(key) FROM holding)"
A, B, C, D, E = (f"passport:{letter}1234567" for letter in "KLMNP")
# Two that contradict each other, two that are one, two of whom a person says that they are not.
LINKS = [
    Said(A, B, "1970-01-31", "男"),
    Said(B, C, "1980-05-23", "男"),
    Said(D, E, "1960-02-01", "女"),
    Said(D, "passport:R1234567", "1960-02-01", "女"),
]


@pytest.fixture
def loaded(store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    """Six rows held, one of them in a second version; the others kept back; two announcements of a partner hub; and links."""
    announced = [
        partner.announcement(n, ("holder", "cn.uscc", stored.LICENCE_CODE), valid_to="2030-01-31") for n in range(2)
    ]
    partner.folder(tmp_path / "sources", monkeypatch)
    partner.run(tmp_path / "announced.csv", announced)
    pipeline.run(SH, input=licences.write(tmp_path / "all.csv", RECORDS))
    pipeline.run(
        SH, input=licences.write(tmp_path / "new.csv", [licences.row(1, name="更名后有限公司", date="2019-09-01")])
    )
    pipeline.run(linked.DOCUMENTS, input=linked.write(tmp_path / "links.csv", LINKS))
    with store.begin() as connection:
        identity_decisions.split(connection, [D, E], actor="tester")
    return store


def codes(store: sa.Engine, *statements: str) -> set[str]:
    """What is found after ``statements``, which are taken back."""
    with store.connect() as connection:
        transaction = connection.begin()
        for statement in statements:
            assert connection.execute(sa.text(statement)).rowcount, statement
        found = {one.code for one in verify.of_store(connection)}
        transaction.rollback()
    return found


WRONG = {
    "ledger-batch-unmerged": "UPDATE row_ledger SET batch = 'nobody'",
    "ledger-file-unknown": "UPDATE row_ledger SET file = 999999",
    "ledger-withdrawn-asserts": f"UPDATE row_ledger SET verdict = 'withdrawn' WHERE holding = {ONE}",
    "ledger-accepted-silent": "UPDATE row_ledger SET verdict = 'accepted' WHERE verdict = 'quarantined'",
    "ledger-half-said": f"UPDATE row_ledger SET authority = NULL WHERE holding = {ONE}",
    "ledger-unmapped": f"UPDATE row_ledger SET mapped = mapped + 1 WHERE holding = {ONE}",
    "mapped-unfounded": 'INSERT INTO mapped_row SELECT holding, id + 1, source, row_key, file, "row", document FROM mapped_row',
    "document-altered": f"UPDATE mapped_row SET document = replace(document, '上海', '北京') WHERE holding = {ONE}",
    "version-altered": 'UPDATE holding_past SET document = document || \'{"name": "x"}\'',
    "ledger-other-version": f"UPDATE row_ledger SET in_force = false WHERE holding = {ONE}",
    "batch-not-conserved": "UPDATE batch SET fetched = fetched + 1",
    "batch-ledger-more": "UPDATE batch SET accepted = 0, unchanged = unchanged + accepted",
    "source-merges-fewer": "UPDATE source SET merges = 1",
    "holding-missing": f"DELETE FROM holding WHERE key = {ONE}",
    "holding-unfounded": f"DELETE FROM row_ledger WHERE holding = {ONE}",
    "holding-not-in-force": f"UPDATE holding SET digest = md5('x')::uuid WHERE key = {ONE}",
    "holding-miscounted": "UPDATE holding SET observations = 2",
    "holding-conflict-unseen": "UPDATE holding SET conflicting = true",
    "holding-differs-from-document": "UPDATE holding SET status = 'revoked'",
    "holding-batch-unmerged": "UPDATE holding SET batch = 'nobody'",
    "holder-missing": f"DELETE FROM holding_holder WHERE holding = {ONE}",
    "holder-unfounded": f"INSERT INTO holding_holder VALUES ('\\x00', {ONE}, 'holder')",
    "version-without-time": "UPDATE holding_past SET recorded_to = recorded_from",
    "version-overlapping": "UPDATE holding_past SET recorded_to = now() + interval '1 day'",
    "feed-silent": f"DELETE FROM feed WHERE holding = {ONE}",
    "feed-says-withdrawn": "UPDATE feed SET change = 'withdrawn'",
    "feed-says-present": f"DELETE FROM holding WHERE key = {ONE}",
    "feed-other-version": "UPDATE feed SET digest = md5('x')::uuid",
    "feed-gap": "DELETE FROM feed WHERE position = 2",
    "feed-time-falls": "UPDATE feed SET recorded_at = recorded_at - interval '1 hour' WHERE position = 7",
    "feed-head-differs": "UPDATE feed_head SET position = position + 1",
    "feed-batch-unmerged": "UPDATE feed SET batch = 'nobody'",
    "feed-out-of-turn": "UPDATE feed SET change = 'changed' WHERE change = 'added'",
    "feed-head-missing": "DELETE FROM feed_head",
    "since-untrue": "INSERT INTO setting VALUES ('feed-since', '2999-01-01')",
    "version-missing": "DELETE FROM holding_past",
    "version-untold": "DELETE FROM feed WHERE position = (SELECT min(position) FROM feed JOIN holding_past USING (holding))",
    "version-other-time": "UPDATE holding_past SET recorded_to = recorded_to - interval '1 microsecond'",
    "quarantine-not-in-ledger": "DELETE FROM row_ledger WHERE verdict = 'quarantined'",
    "quarantine-missing": "DELETE FROM quarantine",
    "quarantine-unfounded": "UPDATE quarantine SET file = 999999",
    "quarantine-other-key": "UPDATE quarantine SET original_key = md5('x')::uuid",
    "quarantine-undecided": "UPDATE quarantine SET decided_by = 'x'",
    "quarantine-other-count": "WITH gone AS (DELETE FROM row_ledger WHERE verdict = 'quarantined') DELETE FROM quarantine",
    "quarantine-other-reasons": "UPDATE quarantine SET reasons = reasons[2:]",
    "entry-missing": "DELETE FROM index_entry WHERE handle = (SELECT min(handle) FROM index_entry)",
    "entry-unfounded": "UPDATE index_entry SET valid_to = NULL",
    "identity-link-unfounded": "INSERT INTO identity_link VALUES ('\\x01', '\\x02', '\\x03', 'standing')",
    "identity-link-missing": "DELETE FROM identity_link WHERE state = 'standing'",
    "identity-link-state": "UPDATE identity_link SET state = 'standing'",
    "identity-claim-missing": "DELETE FROM identity_claim WHERE born_on = '1980-05-23'",
    "identity-claim-unfounded": "UPDATE identity_claim SET born_on = '1980-05-24' WHERE born_on = '1980-05-23'",
    "identity-decision-unknown": "DELETE FROM decision WHERE kind = 'split'",
    "identity-differs": "UPDATE identity_member SET state = 'joined', cluster = component WHERE state = 'contradictory'",
    "membership-untimed": "DELETE FROM identity_change",
    "membership-without-time": "UPDATE identity_past SET recorded_to = recorded_from",
    "membership-overlapping": "UPDATE identity_past SET recorded_to = now() + interval '1 day'",
}


def test_everything_that_can_be_wrong_is_found(loaded: sa.Engine) -> None:
    assert codes(loaded) == set()
    for code, statement in WRONG.items():
        assert code in codes(loaded, statement), f"{code}: {statement}"
    statements = "".join(verify_sql.CHECKS.values())
    named = {code for code in messages.sentences() if f"'{code}'" in statements}
    assert named == set(WRONG), "every code of a statement has a sentence and is tried here"


CLUSTERS = {
    "UPDATE identity_link SET one = other": {"identity-link-missing", "identity-link-unfounded"},
    "DELETE FROM identity_member WHERE state = 'joined'": {"identity-differs"},
    "UPDATE identity_member SET cluster = identifier": {"identity-differs"},
    "UPDATE identity_member SET component = identifier": {"identity-differs"},
    "UPDATE identity_member SET state = 'contradictory'": {"identity-differs"},
    "INSERT INTO identity_member VALUES ('\\x02', NULL, NULL, NULL, '\\x02', '\\x02', 'joined', 1)": {
        "identity-differs"
    },
    "UPDATE identity_decision SET ended_by = decision": {"identity-differs", "identity-link-state"},
    "DELETE FROM identity_decision WHERE side = 1": {"identity-differs", "identity-link-state"},
    "DELETE FROM identity_decision WHERE side = 2": {"identity-link-state"},
    "UPDATE identity_claim SET sex = ''": {"identity-claim-missing", "identity-claim-unfounded"},
}


def test_a_decision_that_was_cut_off_is_told_and_taken_back(loaded: sa.Engine) -> None:
    """Landed, and killed before its commit: a rebuild would carry it out, whatever the store says."""
    with loaded.connect() as connection:
        cut = connection.begin()
        landed = identity_decisions.merge(connection, [A, C], actor="tester")["decision"]
        cut.rollback()
    (found,) = verify.verify(loaded).differences
    assert (found.code, found.found, found.keys) == ("decision-unfinished", 1, (landed,))
    assert "yici verify --mend" in found.advice()
    done = CliRunner().invoke(app, ["verify", "--mend", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["ok"] is True
    assert verify.verify(loaded).ok


def test_a_decision_under_way_is_waited_for(loaded: sa.Engine) -> None:
    with loaded.connect() as connection, ThreadPoolExecutor(1) as pool:
        deciding = connection.begin()
        identity_decisions.merge(connection, [A, C], actor="tester")
        verifying = pool.submit(verify.verify, loaded)
        with pytest.raises(TimeoutError):
            verifying.result(timeout=3)
        deciding.commit()
        assert verifying.result(timeout=60).ok


def test_clusters_are_made_anew(loaded: sa.Engine) -> None:
    """From links, claims and decisions; what is compared stays as it was."""
    for statement, found in CLUSTERS.items():
        assert codes(loaded, statement) == found, statement


def test_dropped_months_are_not_missed(loaded: sa.Engine) -> None:
    """Retention leaves the last part of the feed and of past versions, and of what is held the last entry."""
    moved = [
        f"UPDATE {table} SET {column} = {column} - interval '1 year' WHERE {column} > '-infinity'"
        for table, column in (
            ("feed", "recorded_at"),
            ("batch", "recorded_at"),
            ("feed_head", "recorded_at"),
            ("identity_change", "recorded_at"),
        )
    ]
    moved.append(
        "UPDATE identity_past SET recorded_from = recorded_from - interval '1 year', recorded_to = recorded_to - interval '1 year'"
    )
    past = "UPDATE holding_past SET recorded_from = recorded_from - interval '1 year', recorded_to = recorded_to - interval '1 year'"
    kept = f"UPDATE holding_past SET kept_digest = {KEPT_DIGEST}"
    gone = "DELETE FROM feed AS f WHERE EXISTS (SELECT FROM feed AS l WHERE l.holding = f.holding AND l.position > f.position)"
    noted = [
        f"INSERT INTO setting VALUES ('{table}-since', '{dt.date.today():%Y-%m}-01')"
        for table in ("feed", "holding_past")
    ]
    assert codes(loaded, *moved, past, kept) == set()
    assert codes(loaded, *moved, past, kept, gone, "DELETE FROM holding_past", *noted) == set()
    for note, missed in zip(noted, ({"version-missing"}, {"feed-gap", "feed-out-of-turn"}), strict=True):
        assert codes(loaded, *moved, past, kept, gone, "DELETE FROM holding_past", note) == missed, (
            "the other was not dropped"
        )
    assert "since-untrue" in codes(loaded, *moved, past, kept, gone, *noted), "a month that is there was not dropped"


SILENCED = (
    "UPDATE quarantine SET state = 'rejected' WHERE state = 'open'",
    "UPDATE quarantine SET state = 'released' WHERE state = 'open'",
    "UPDATE quarantine SET state = 'superseded' WHERE state = 'open'",
    "UPDATE quarantine SET verdict = 'rejected'",
    "UPDATE quarantine SET batch = (SELECT max(id) FROM batch)",
    'UPDATE quarantine SET "row" = "row" + 1',
    "UPDATE quarantine SET decided_at = now()",
    "UPDATE quarantine SET reasons = ARRAY['x']",
    "DELETE FROM quarantine WHERE id = (SELECT min(id) FROM quarantine)",
    "WITH gone AS (DELETE FROM row_ledger WHERE verdict = 'quarantined') DELETE FROM quarantine WHERE verdict = 'quarantined'",
    "DELETE FROM feed WHERE position = (SELECT min(position) FROM feed JOIN holding_past USING (holding))",
    "DELETE FROM feed WHERE position = (SELECT max(position) FROM feed)",
    "DELETE FROM feed",
    "UPDATE feed SET change = 'changed' WHERE change = 'added'",
    "UPDATE feed SET batch = (SELECT max(id) FROM batch WHERE state = 'merged')",
    "UPDATE feed SET digest = md5('x')::uuid WHERE position = (SELECT min(position) FROM feed JOIN holding_past USING (holding))",
    "UPDATE feed SET recorded_at = recorded_at - interval '40 days'",
    "UPDATE feed_head SET recorded_at = recorded_at - interval '40 days'",
    "DELETE FROM holding_past",
)


def test_what_was_told_or_kept_back_cannot_go_unnoticed(loaded: sa.Engine) -> None:
    for statement in SILENCED:
        assert codes(loaded, statement), statement


def test_a_row_altered_in_the_quarantine_is_told_and_not_released(loaded: sa.Engine) -> None:
    """Released as it stands it would hold what nobody delivered; a rebuild would know nothing of it."""
    with loaded.begin() as connection:
        (entry,) = connection.scalars(
            sa.text("SELECT id FROM quarantine WHERE state = 'open' ORDER BY id LIMIT 1")
        ).all()
        connection.execute(
            sa.text(
                """UPDATE quarantine SET raw = convert_to(replace(convert_from(raw, 'UTF8'), '示例', '虚构'), 'UTF8')
                WHERE id = :entry"""
            ),
            {"entry": entry},
        )
        before = connection.scalar(sa.text("SELECT count(*) FROM batch"))
    (found,) = verify.verify(loaded).differences
    assert (found.check, found.code, found.keys) == ("quarantine", "quarantine-altered", (str(entry),))
    refused = CliRunner().invoke(app, ["quarantine", "release", str(entry), "--json"])
    assert isinstance(refused.exception, FatalError) and refused.exception.code == "release-altered"
    assert str(entry) in refused.exception.message() and "yici rebuild --replace" in refused.exception.advice()
    with loaded.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM batch")) == before
        assert connection.scalar(sa.text("SELECT state FROM quarantine WHERE id = :entry"), {"entry": entry}) == "open"


def test_keys_are_few_and_name_nobody(loaded: sa.Engine) -> None:
    with loaded.connect() as connection, connection.begin() as transaction:
        connection.execute(sa.text("DELETE FROM holding_holder"))
        connection.execute(sa.text("UPDATE row_ledger SET in_force = false"))
        found = {one.code: one for one in verify.of_store(connection)}
        transaction.rollback()
    assert found["holder-missing"].found > verify.SHOWN >= len(found["holder-missing"].keys) > 0
    row = found["ledger-other-version"].keys[0]
    assert row.startswith(f"{SH} file ") and " row " in row, "a row key may be a plain hash of an identifier"
    shown = json.dumps([one.shown() for one in found.values()], ensure_ascii=False)
    assert not any(licences.credit_code(number) in shown for number in range(9))


def test_a_running_hub_neither_waits_nor_is_waited_for(loaded: sa.Engine) -> None:
    with loaded.connect() as merging:
        merging.execute(sa.text("SET LOCAL lock_timeout = '2s'"))
        merging.execute(sa.text("SELECT position FROM feed_head FOR UPDATE"))
        merging.execute(sa.text("SELECT merges FROM source FOR UPDATE"))
        merging.execute(sa.text("DELETE FROM holding_holder"))
        assert verify.verify(loaded).ok, "what is not committed is not seen"
        with state.snapshot(loaded, temporary=True) as connection:
            verify.of_store(connection)
            merging.execute(sa.text("UPDATE holding SET observations = 9"))
        merging.rollback()


def test_the_landing_zone_is_checked(loaded: sa.Engine) -> None:
    landing = Landing(home.current().landing_url)
    source, batch = next(landing.batches())
    path = Path(home.current().path / "landing") / landing.read_manifest(source, batch).files[0].path
    whole = path.read_bytes()

    def found(**options: bool) -> set[str]:
        return {one.code for one in verify.verify(loaded, **options).differences}

    assert found(read_bytes=True) == set()
    path.write_bytes(whole.replace(b"0", b"1", 1))
    assert (found(), found(read_bytes=True)) == (set(), {"landing-file-altered"})
    path.write_bytes(whole[:-1])
    assert found() == {"landing-file-altered"}
    path.unlink()
    assert found() == {"landing-file-missing"}
    path.write_bytes(whole)
    manifest = next(Path(home.current().path / "landing" / "manifests").rglob(f"{batch}.json"))
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text("{", encoding="utf-8")
    assert found() == {"landing-manifest-invalid"}
    manifest.unlink()
    assert found() == {"landing-manifest-missing"}
    manifest.write_text(text, encoding="utf-8")
    assert found() == set()


def test_the_journal_is_mended(loaded: sa.Engine) -> None:
    before = journal.entries()
    kept = sorted((home.current().path / "landing" / "merges").rglob("*.json"))
    kept[0].unlink()
    runner = CliRunner()
    shown = runner.invoke(app, ["verify", "--json"])
    report = json.loads(shown.stdout)
    assert shown.exit_code == 1 and not report["ok"]
    assert [one["code"] for one in report["differences"]] == ["journal-missing"]
    assert "--mend" in report["differences"][0]["advice"]
    assert runner.invoke(app, ["verify", "--mend"]).exit_code == 0
    assert [(one.batch, one.number, one.recorded_at) for one in journal.entries()] == [
        (one.batch, one.number, one.recorded_at) for one in before
    ]
    kept[1].write_text("{", encoding="utf-8")
    assert {one.code for one in verify.verify(loaded).differences} == {"journal-unreadable"}


def test_the_head_of_the_feed_is_mended(loaded: sa.Engine, tmp_path: Path) -> None:
    with loaded.begin() as connection:
        before = connection.execute(sa.text("DELETE FROM feed_head RETURNING *")).one()
    (found,) = verify.verify(loaded).differences
    assert found.code == "feed-head-missing" and "yici verify --mend" in found.advice()
    delivery = licences.write(tmp_path / "more.csv", [licences.row(20)])
    with pytest.raises(FatalError) as refused:
        pipeline.run(SH, input=delivery)
    assert refused.value.code == "feed-head-lost" and "yici verify --mend" in refused.value.advice()
    with pytest.raises(FatalError) as undecided, loaded.begin() as connection:
        identity_decisions.split(connection, [A, C], actor="tester")
    assert undecided.value.code == "feed-head-lost"
    done = CliRunner().invoke(app, ["verify", "--mend", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["ok"] is True
    with loaded.connect() as connection:
        assert connection.execute(sa.text("SELECT * FROM feed_head")).one() == before
    assert pipeline.run(SH, input=delivery)["accepted"] == 1
    assert verify.verify(loaded).ok


def test_a_decision_altered_in_the_store_is_told(loaded: sa.Engine) -> None:
    with loaded.begin() as connection:
        connection.execute(sa.text("UPDATE decision SET actor = 'somebody else'"))
    (found,) = verify.verify(loaded).differences
    assert (found.check, found.code) == ("decisions", "decision-altered")


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_the_command(loaded: sa.Engine, lang: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YICI_LANG", lang)
    runner = CliRunner()
    fine = runner.invoke(app, ["verify", "--bytes", "--json"])
    assert fine.exit_code == 0 and json.loads(fine.stdout)["ok"] is True
    parts = json.loads(runner.invoke(app, ["verify", "--digest", "--json"]).stdout)
    assert parts[state.ALL] == json.loads(fine.stdout)["digest"]
    with loaded.begin() as connection:
        connection.execute(sa.text(f"DELETE FROM holding_holder WHERE holding = {ONE}"))
    told = runner.invoke(app, ["verify"])
    assert told.exit_code == 1
    assert ("yici rebuild --replace" in told.stdout) and {"zh": "标识索引", "en": "index of identifiers"}[
        lang
    ] in told.stdout
