"""``yici rebuild``: from the landing zone alone, decisions included, the store ends in the same state."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors import source as sources
from connectors.errors import BatchHalted, FatalError, UsageError
from connectors.landing import Landing
from hub import (
    checkpoint,
    database,
    decisions,
    home,
    identity_decisions,
    index_entries,
    journal,
    partitions,
    pipeline,
    quarantine,
    rebuild,
    replay,
    retention,
    review,
    schema,
    state,
    verify,
)  # fmt: skip
from hub.cli import app
from hub.exchange import ledger, ledger_verify, proofs
from tests import ledgers, licences, partner, stored

PACKAGED = "sh-amr-enterprises"
SH = "xx-partial"
WHOLE = "xx-snapshots"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two copies of Shanghai's folder, one of which delivers whole snapshots."""
    root = tmp_path / "sources"
    partner.folder(root, monkeypatch)
    for name in (SH, WHOLE):
        shutil.copytree(sources.load(PACKAGED).folder, root / name)
        path = root / name / "source.yml"
        text = path.read_text(encoding="utf-8").replace(f"name: {PACKAGED}", f"name: {name}")
        text = text.replace("extent: partial", "extent: snapshot") if name == WHOLE else text
        path.write_text(text.replace("max: 500000", "max: 40"), encoding="utf-8")
    return root


@pytest.fixture
def lived(store: sa.Engine, folders: Path, tmp_path: Path) -> sa.Engine:
    """A store with a past: versions, a halt that was approved, one that was not, a release, a rejection, withdrawals."""
    numbers = iter(range(100))

    def deliver(records: list[dict[str, str]], source: str = SH, **options: Any) -> dict[str, Any]:
        return pipeline.run(source, input=licences.write(tmp_path / f"{next(numbers)}.csv", records), **options)

    deliver([*licences.rows(6), licences.row(7, name=""), licences.row(8, name="")])
    deliver([licences.row(1, name="更名后有限公司", date="2019-09-01")])
    review.release([_waiting(7)], actor="tester", note="confirmed")
    review.reject([_waiting(8)], actor="tester")
    with pytest.raises(BatchHalted):
        deliver(licences.rows(50))  # never approved, and superseded by the next
    deliver([licences.row(9), licences.row(9, name="另一名称有限公司")])
    with pytest.raises(BatchHalted) as halted:
        deliver(licences.rows(45))
    review.approve(str(halted.value.values["batch"]), actor="tester", note="yearly delivery")
    deliver(licences.rows(30), WHOLE, as_of="2019-06-30")
    assert deliver(licences.rows(28), WHOLE, as_of="2019-07-31")["withdrawn"] == 2
    announced = [partner.announcement(n, ("holder", "cn.uscc", stored.LICENCE_CODE)) for n in range(3)]
    for place, part in enumerate(
        (announced[:2], [announced[2], partner.withdrawn(announced[0], "2026-04-01T08:00:00Z")])
    ):
        partner.run(tmp_path / f"page-{place}.csv", part)
    broken = tmp_path / "broken.csv"
    broken.write_bytes(b"a,b\n1,2\n")
    with pytest.raises(BatchHalted):
        pipeline.run(SH, input=broken)
    return store


def _waiting(number: int, source: str = SH) -> int:
    with database.engine().connect() as connection:
        for row in quarantine.listed(connection, source=source):
            if licences.credit_code(number) in quarantine.show(connection, row.id)["raw"]:
                return int(row.id)
    raise LookupError(number)


def _drop(server: sa.URL, name: str) -> None:
    with sa.create_engine(server.set(database="postgres"), isolation_level="AUTOCOMMIT").connect() as admin:
        admin.execute(sa.text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


def digest(engine: sa.Engine) -> dict[str, str]:
    with state.snapshot(engine) as connection:
        return state.digest(connection)


def rows(engine: sa.Engine, query: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(sa.text(query)))


def at(url: str) -> sa.Engine:
    return sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)


SAME = (
    "SELECT id, source, kind, fetched, unchanged, accepted, quarantined, rejected, withdrawn, recorded_at, started_at"
    " FROM batch WHERE state = 'merged' ORDER BY id",
    "SELECT kind, source, actor, note, row_key, digest, landed, decided_at FROM decision ORDER BY landed, digest",
    "SELECT holding, recorded_from, recorded_to, digest, batch FROM holding_version ORDER BY 1, 2",
    "SELECT name, as_of, listed_as_of, last_success_at, merges, cursor FROM source ORDER BY name",
    "SELECT holding, change, digest, batch FROM feed ORDER BY position",
    "SELECT source, original_key, digest, verdict, state FROM quarantine ORDER BY 1, 2, 3, 5",
)


def test_the_landing_zone_is_enough(lived: sa.Engine, fresh: str) -> None:
    before = digest(lived)
    result = rebuild.rebuild(fresh)
    assert result.digest == before == digest(at(fresh)) and result.other == []
    assert (result.replayed.counts["released"], result.replayed.idle) == (1, 2)
    assert not result.replayed.changed
    for query in SAME:
        assert rows(at(fresh), query) == rows(lived, query), query
    assert verify.verify(at(fresh)).ok and verify.verify(lived).ok
    assert rows(at(fresh), "SELECT * FROM setting WHERE name = 'rebuild'") == []
    landing = Landing(home.current().landing_url)
    runs = rows(lived, "SELECT id FROM batch WHERE kind = 'run'")
    assert len(list(landing.batches())) == len(runs) + 3, "three decisions; nothing was landed again"
    assert not replay.replay(landing).counts, "nothing is done twice"

    with pytest.raises(FatalError) as refused:
        rebuild.rebuild(fresh)
    assert refused.value.code == "rebuild-not-empty"
    with pytest.raises(FatalError) as refused:
        rebuild.rebuild()
    assert refused.value.code == "rebuild-not-empty"
    with pytest.raises(FatalError) as refused, lived.connect() as busy:
        busy.execute(sa.text("SELECT 1"))
        rebuild.rebuild(replace=True)
    assert refused.value.code == "rebuild-in-use"
    lived.dispose()
    with pytest.raises(FatalError) as refused:
        rebuild.rebuild(replace=True, confirm=lambda name: False)
    assert refused.value.code == "rebuild-declined"
    assert digest(lived) == before


@pytest.mark.slow
def test_a_store_that_somebody_opens_meanwhile_is_replaced_by_the_same_command_again(lived: sa.Engine) -> None:
    before = digest(lived)
    lived.dispose()
    opened: list[sa.Connection] = []

    def come(step: str, done: int, total: int) -> None:
        if step == "digest" and not opened:
            opened.append(lived.connect())

    with pytest.raises(FatalError) as refused:
        rebuild.rebuild(replace=True, progress=come)
    assert refused.value.code == "rebuild-in-use" and digest(lived) == before
    opened[0].close()
    lived.dispose()
    done = rebuild.rebuild(replace=True, drop_old=True)
    assert not done.replayed.counts["batches"], "all of it had been done"
    assert digest(lived) == before


@pytest.mark.slow
def test_a_rebuild_that_was_stopped_is_continued(lived: sa.Engine, fresh: str, folders: Path) -> None:
    before = digest(lived)
    for place in (1, 4, 7):

        def stop(step: str, done: int, total: int, place: int = place) -> None:
            if done == place:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            rebuild.rebuild(fresh, progress=stop)
        assert before != digest(at(fresh))
    away = folders.parent / "away"  # a source that is gone stops it too
    shutil.move(folders / WHOLE, away)
    with pytest.raises(UsageError, match=WHOLE):
        rebuild.rebuild(fresh)
    shutil.move(away, folders / WHOLE)
    result = rebuild.rebuild(fresh)
    assert result.digest == before == digest(lived)
    merged = rows(lived, "SELECT id FROM batch WHERE state = 'merged' AND kind = 'run'")
    assert 0 < result.replayed.counts["batches"] < len(merged)


@pytest.mark.slow
def test_replacing_keeps_what_no_source_said(store: sa.Engine, tmp_path: Path) -> None:
    pipeline.run(PACKAGED, input=licences.write(tmp_path / "a.csv", licences.rows(3)))
    with store.begin() as connection:
        connection.execute(
            sa.text(
                """INSERT INTO agreement (client, secret_hash, name, items, purposes, valid_from)
                VALUES ('hall', 'x', 'Hall', '{demo}', '{handle-application}', now())"""
            )
        )
        connection.execute(sa.text("DELETE FROM holding_holder"))  # damaged: the rebuild brings it back
    store.dispose()
    shown = CliRunner().invoke(app, ["rebuild", "--replace", "--yes", "--json"])
    assert shown.exit_code == 0, shown.stderr
    result = json.loads(shown.stdout)
    try:
        assert result["differs_from_before"] == ["all", "holders"] and result["carried_over"]["agreement"] == 1
        assert digest(store)["all"] == result["digest"] and verify.verify(store).ok
        assert rows(store, "SELECT client FROM agreement") == [("hall",)]
        before = at(store.url.set(database=result["before"]).render_as_string(hide_password=False))
        assert rows(before, "SELECT count(*) FROM holding_holder") == [(0,)], "the old store is kept as it was"
        pipeline.run(PACKAGED, input=licences.write(tmp_path / "after.csv", [licences.row(200)]))
        assert verify.verify(store).ok, "and the hub goes on"
    finally:
        _drop(store.url, result["before"])


def test_the_exchange_and_its_ledger_are_carried_over(
    store: sa.Engine, fresh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No source ever said them; the ledger is as provable as before, and goes on where it was."""
    monkeypatch.setenv("YICI_HUB", "sh")
    monkeypatch.setenv("YICI_REGION", "310000")
    pipeline.run(PACKAGED, input=licences.write(tmp_path / "a.csv", licences.rows(2)))
    with store.begin() as connection:
        ledgers.partner(connection, tmp_path / "zj")
    made = ledgers.filled(store, tmp_path / "zj", 5)
    ledgers.plain(store, 2)  # without their places yet
    result = rebuild.rebuild(fresh)
    assert result.carried is not None
    assert {name: result.carried[name] for name in ("exchange_record", "exchange_pending", "exchange_chain", "exchange_head")} == {
        "exchange_record": 7, "exchange_pending": 2, "exchange_chain": 5, "exchange_head": 1
    }  # fmt: skip
    assert set(rebuild.CARRIED) >= {table for table in schema.metadata.tables if table.startswith("exchange_")}, (
        "a table of the exchange that is not derived from what is held"
    )
    engine = at(fresh)
    for table in ("exchange_peer", "exchange_record", "exchange_checkpoint", "exchange_chain", "exchange_head"):
        assert rows(engine, f"SELECT t::text FROM {table} AS t ORDER BY 1") == rows(
            store, f"SELECT t::text FROM {table} AS t ORDER BY 1"
        )
    assert ledger.chain(engine) == 2
    report = ledger_verify.verify(engine, ask=())
    assert report.ok and report.records == 7
    with engine.connect() as connection:
        assert proofs.export(connection, str(made[0]))["chain"]["position"] == 1


def test_the_folders_of_today_are_used_and_said(store: sa.Engine, folders: Path, tmp_path: Path, fresh: str) -> None:
    for place in range(2):
        pipeline.run(SH, input=licences.write(tmp_path / f"{place}.csv", licences.rows(4 + place)))
    described = folders / SH / "source.yml"
    described.write_text(described.read_text(encoding="utf-8").replace("max: 40", "max: 4"), encoding="utf-8")
    result = rebuild.rebuild(fresh)
    assert result.replayed.changed == {SH}
    assert len(result.replayed.approved) == 1, (
        "a batch that was merged is merged again, whatever the gates of today say"
    )
    assert result.digest == digest(store)


def test_an_attempt_that_came_to_nothing_gives_way_to_the_next(store: sa.Engine, tmp_path: Path, fresh: str,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Cut off between the journal's entry and the commit, and another batch came instead."""
    from hub import merge as merging

    pipeline.run(PACKAGED, input=licences.write(tmp_path / "a.csv", licences.rows(3)))
    with monkeypatch.context() as patched:

        def die(*args: object, **options: object) -> None:
            raise sa.exc.OperationalError("merge", {}, Exception("server closed the connection"))

        patched.setattr(merging, "merge", die)
        with pytest.raises(Exception):  # noqa: B017 - whatever it is called
            pipeline.run(PACKAGED, input=licences.write(tmp_path / "lost.csv", licences.rows(9)))
    assert len(list((home.current().path / "landing" / "merges").rglob("*.json"))) == 2
    pipeline.run(PACKAGED, input=licences.write(tmp_path / "b.csv", licences.rows(4)))
    result = rebuild.rebuild(fresh)
    assert result.digest == digest(store) and result.replayed.counts["batches"] == 2


def test_a_decision_made_twice_is_done_once(store: sa.Engine, tmp_path: Path, fresh: str,
                                            monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Cut off between its landing and the commit, and decided again: both lie in the landing zone, and rebuilding ends."""
    pipeline.run(PACKAGED, input=licences.write(tmp_path / "a.csv", [*licences.rows(3), licences.row(8, name="")]))
    with monkeypatch.context() as patched:

        def die(*args: object) -> None:
            raise sa.exc.OperationalError("decided", {}, Exception("server closed the connection"))

        patched.setattr(quarantine, "decided", die)
        with pytest.raises(sa.exc.OperationalError):
            review.reject([_waiting(8, PACKAGED)], actor="tester")
    review.reject([_waiting(8, PACKAGED)], actor="tester")
    assert len(list(decisions.every(Landing(home.current().landing_url)))) == 2
    result = rebuild.rebuild(fresh)
    assert result.digest == digest(store) and result.replayed.counts["decisions"] == 1


@pytest.mark.slow
def test_a_checkpoint_stands_for_what_came_before(store: sa.Engine, tmp_path: Path, fresh: str) -> None:
    """And people's decisions about who is whom are repeated, those in the checkpoint not twice."""
    landing = Landing(home.current().landing_url)
    passports = [f"passport:E{number:08d}" for number in range(4)]
    for number in range(3):
        pipeline.run(PACKAGED, input=licences.write(tmp_path / f"{number}.csv", licences.rows(3 + number)))
        if number < 2:
            with store.begin() as connection:
                identity_decisions.merge(connection, passports[2 * number : 2 * number + 2], actor="tester")
        if number == 0:
            with state.snapshot(store) as connection:
                checkpoint.write(connection, landing)
    before = digest(store)
    first = journal.entries()[0]
    whole = (home.current().path / "landing" / first.path).read_bytes()
    landing.zone.remove(first.path)
    with pytest.raises(FatalError) as refused:
        rebuild.rebuild(fresh)
    assert refused.value.code == "replay-gap" and refused.value.values["last"] == 1
    _drop(store.url, f"{store.url.database}_fresh")
    later = {entry: (home.current().path / "landing" / entry.path).read_bytes() for entry in journal.entries()}
    for entry in later:
        landing.zone.remove(entry.path)
    with pytest.raises(FatalError) as refused:
        rebuild.rebuild(fresh)
    assert (refused.value.code, refused.value.values["last"]) == ("replay-gap", 3), "a source of which nothing is left"
    _drop(store.url, f"{store.url.database}_fresh")
    for entry, content in later.items():
        landing.zone.write(entry.path, content)
    result = rebuild.rebuild(fresh, from_checkpoint="latest")
    assert result.digest == before and result.checkpoint == checkpoint.names(landing)[-1]
    assert (result.replayed.counts["batches"], result.replayed.counts["decisions"]) == (2, 1)
    assert len(rows(at(fresh), "SELECT FROM identity_member")) == 4
    _drop(store.url, f"{store.url.database}_fresh")
    (home.current().path / "landing" / first.path).write_bytes(whole)
    assert rebuild.rebuild(fresh).digest == before


def test_what_a_partner_hub_said_stays_forgotten(store: sa.Engine, folders: Path, tmp_path: Path, fresh: str) -> None:
    for number, month in ((1, 3), (2, 5)):
        said = [
            partner.announcement(number, ("holder", "cn.uscc", stored.LICENCE_CODE), at=f"2026-0{month}-01T08:00:00Z")
        ]
        partner.run(tmp_path / f"page-{number}.csv", said)
        if number == 1:
            index_entries.forget(partner.SOURCE, actor="anna", note="over")
    result = rebuild.rebuild(fresh)
    assert result.digest == digest(store)
    merges = "SELECT merges FROM source ORDER BY name"
    assert rows(at(fresh), merges) == rows(store, merges), "no later merge takes a number of the journal"


@pytest.fixture
def dropped(store: sa.Engine, tmp_path: Path, fresh: str, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    """A store of which all was merged in January 2022 but the last batch; a checkpoint, and then what is old was dropped."""
    good = [licences.row(4, name=""), *licences.rows(3)]
    pipeline.run(PACKAGED, input=licences.write(tmp_path / "a.csv", good))
    pipeline.run(PACKAGED, input=licences.write(tmp_path / "b.csv", [licences.row(1, name="更名", date="2019-09-01")]))
    zone = home.current().path / "landing"
    this = f"{dt.datetime.now(dt.UTC):%Y-%m}"
    for folder in ("raw", "manifests", "merges"):
        (zone / folder / this).rename(zone / folder / "2022-01")
    day = re.compile(rf"{this}-[0-9]{{2}}|{this.replace('-', '')}[0-9]{{2}}(?=T)|{this}")
    then = {10: "2022-01-30", 8: "20220130", 7: "2022-01"}
    for path in [*(zone / "manifests").rglob("*.json"), *(zone / "merges").rglob("*.json")]:
        path.write_text(day.sub(lambda found: then[len(found[0])], path.read_text("utf-8")), "utf-8")
        path.rename(path.with_name(day.sub("20220130", path.name)))
    rebuild.rebuild(fresh)
    monkeypatch.setenv("YICI_DATABASE_URL", at(fresh).url.render_as_string(hide_password=False))
    pipeline.run(
        PACKAGED, input=licences.write(tmp_path / "c.csv", [licences.row(2, name="又更名", date="2019-09-02")])
    )
    assert verify.verify().ok
    landing = Landing(home.current().landing_url)
    with state.snapshot() as connection:
        checkpoint.write(connection, landing)
    items = {f"{item.kind} {item.name}" for item in retention.apply(landing, retention.Keep())}
    assert {"landing 2022-01", "history 2022-01", "feed 2022-01"} <= items
    assert verify.verify().ok
    return database.engine()


def test_what_retention_dropped_after_the_checkpoint_is_not_missed(dropped: sa.Engine) -> None:
    """The very line of cron that the guide advises; with the old store, and without it."""
    for number, (_, old) in enumerate((("beside the old store", True), ("alone", False))):
        target = dropped.url.set(database=f"{dropped.url.database}_{number}")
        try:
            with pytest.MonkeyPatch.context() as patch:
                if not old:
                    patch.setenv("YICI_DATABASE_URL", target.render_as_string(hide_password=False))
                made = rebuild.rebuild(target.render_as_string(hide_password=False), from_checkpoint="latest")
                patch.setenv("YICI_DATABASE_URL", target.render_as_string(hide_password=False))
                assert made.other == [] and verify.verify().differences == ()
                with database.engine().connect() as connection:
                    assert partitions.since(connection, "landing") == dt.date(2022, 2, 1)
                    assert journal.mend(connection) == 0
                database.engine().dispose()
        finally:
            _drop(dropped.url, str(target.database))


def test_what_was_begun_otherwise_is_begun_anew(dropped: sa.Engine) -> None:
    """As the failed attempt advises: nothing has to be dropped by hand."""
    target = dropped.url.set(database=f"{dropped.url.database}_again")
    url = target.render_as_string(hide_password=False)
    try:
        with pytest.raises(FatalError) as refused:
            rebuild.rebuild(url)
        assert refused.value.code == "replay-gap" and "yici rebuild --checkpoint latest" in refused.value.advice()
        made = rebuild.rebuild(url, from_checkpoint="latest")
        (name,) = checkpoint.names(Landing(home.current().landing_url))
        assert (made.anew, made.checkpoint, made.other) == ("-", name, [])
        left = f"SELECT pid FROM pg_stat_activity WHERE datname = '{target.database}'"
        assert rows(dropped, left) == [], "a session that is left would be in the way of who renames it"
        assert rows(at(url), "SELECT name FROM setting WHERE name LIKE 'rebuild%'") == []
    finally:
        _drop(dropped.url, str(target.database))


def test_one_that_was_begun_with_the_same_checkpoint_goes_on(
    dropped: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = dropped.url.set(database=f"{dropped.url.database}_again")
    url = target.render_as_string(hide_password=False)
    loads: list[str] = []
    load = checkpoint.load

    def counted(connection: sa.Connection, landing: Landing, name: str) -> Any:
        loads.append(name)
        return load(connection, landing, name)

    monkeypatch.setattr(checkpoint, "load", counted)
    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(replay, "replay", interrupted)
            rebuild.rebuild(url, from_checkpoint="latest")
        made = rebuild.rebuild(url, from_checkpoint="latest")
        assert made.anew is None and made.checkpoint == loads[0] and len(loads) == 1
    finally:
        _drop(dropped.url, str(target.database))


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
