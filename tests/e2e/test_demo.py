"""The whole demo as a user runs it: twice with the services up, interrupted, again after a stop; and a halted batch."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import delta_sharing
import psutil
import pytest
import requests
import sqlalchemy as sa

from demo import departments, neighbour, questions, report
from demo.afterwards import FIELDS
from demo.airflow import Airflow
from hub import embedded, services, stack
from hub.home import Home

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parent.parent.parent
SOURCES = [source.name for source in departments.all_sources()]
SECONDS = 180


@dataclass
class Demo:
    """A home of its own, and what each run of the demo in it left in ``demo.json``."""

    home: Home
    written: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def start(self, *command: str) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("YICI", "AIRFLOW"))}
        environment |= {"YICI_HOME": str(self.home.path), "YICI_LANG": "en", "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *command: str) -> str:
        process = self.start(*command)
        try:
            output, _ = process.communicate(timeout=600)
        finally:
            process.kill()
        assert process.returncode == 0, output
        return output

    def demo(self) -> str:
        started = time.monotonic()
        output = self.run("demo.run")
        self.seconds.append(time.monotonic() - started)
        self.written.append(json.loads((self.home.path / "demo.json").read_text(encoding="utf-8")))
        return output

    def airflow(self) -> Airflow:
        user = stack.read_credentials(self.home)["airflow"]
        return Airflow(self.written[-1]["addresses"]["airflow"], user["username"], user["password"])

    def nothing_runs(self) -> bool:
        return all(
            services.processes(home) == [] and embedded._postmaster(home) is None
            for home in (self.home, neighbour.home_of(self.home))
        )

    @property
    def there(self) -> Home:
        """Zhejiang's."""
        return neighbour.home_of(self.home)

    def yici(self, home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command as its reader types it, in the home of either hub."""
        environment = {**os.environ, "YICI_HOME": str(home.path), "YICI_LANG": "en"}
        command = [sys.executable, "-m", "hub", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=120, check=False
        )

    def told(self, home: Home, *arguments: str) -> Any:
        """What it prints as JSON."""
        done = self.yici(home, *arguments, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def store(self, home: Home, query: str) -> list[Any]:
        """Rows of the store of either hub, which is up."""
        engine = sa.create_engine(embedded.url(home), hide_parameters=True)
        try:
            with engine.connect() as connection:
                return list(connection.execute(sa.text(query)))
        finally:
            engine.dispose()
            embedded.release(home)

    def intake(self) -> questions.Intake:
        known = json.loads((self.home.path / "credentials.json").read_text())["intake"]
        return questions.Intake(self.written[-1]["addresses"]["api"], known["client_id"], known["client_secret"], "en")

    def asked(self) -> list[tuple[questions.Question, dict[str, Any]]]:
        """The demo's questions once more, as its intake system asks them."""
        client = self.intake()
        chosen = questions.choose(self.home.path / "demo", dt.date.today())
        return [(question, answer) for question in chosen for answer in client.ask(question)]

    def ask(self) -> list[dict[str, Any]]:
        """Their answers."""
        return [answer for _, answer in self.asked()]

    def elsewhere(self) -> tuple[questions.Question, str, dict[str, Any]]:
        """A question, its answer, and what of that Zhejiang holds."""
        return next(
            (question, answer["answer"], entry)
            for question, answer in self.asked()
            for line in answer["requirements"]
            if line["disposition"] == "held_elsewhere"
            for entry in line["elsewhere"]
        )


@pytest.fixture
def fresh() -> Iterator[Demo]:
    """A home that does not exist yet, outside pytest's own folder, which other sessions close to the database's user."""
    with tempfile.TemporaryDirectory(prefix="yici-e2e-") as folder:
        made = Demo(Home(Path(folder) / "home"))
        try:
            yield made
        finally:
            services.stop_all(made.home)


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """Run twice, the services left up. The API's usual port is taken, so that another must be found."""
    with tempfile.TemporaryDirectory(prefix="yici-e2e-") as folder, socket.socket() as taken:
        home = Home(Path(folder) / "home")
        made = Demo(home)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((services.HOST, stack.API_PORT))
            taken.listen()
        except OSError:
            pass  # somebody else has it: as good
        try:
            made.demo()
            made.demo()
            yield made
        finally:
            services.stop_all(home)


def test_the_first_run_accepts_and_keeps_dirt_back(demo: Demo) -> None:
    runs = demo.written[0]["runs"]
    assert sorted(run["source"] for run in runs) == SOURCES
    for run in runs:
        assert set(run) == {"source", "dag_id", "run_id", "state", "fetched", "unchanged", "accepted", "quarantined",
                            "rejected", "seconds"}  # fmt: skip
        assert run["state"] == "success" and run["accepted"] > 0 and run["seconds"] > 0
        assert run["fetched"] == run["unchanged"] + run["accepted"] + run["quarantined"] + run["rejected"]
    assert sum(run["quarantined"] for run in runs) > 0
    assert sum(run["rejected"] for run in runs) > 0


def test_the_second_run_accepts_nothing_new(demo: Demo) -> None:
    runs = demo.written[1]["runs"]
    assert [run["state"] for run in runs] == ["success"] * len(SOURCES)
    assert sum(run["accepted"] + run["quarantined"] + run["rejected"] for run in runs) == 0
    assert {run["run_id"] for run in runs}.isdisjoint(run["run_id"] for run in demo.written[0]["runs"])


def test_it_takes_less_than_three_minutes(demo: Demo) -> None:
    assert demo.seconds[0] < SECONDS


def test_the_answers_differ(demo: Demo) -> None:
    answers = demo.written[0]["answers"]
    for answer in answers:
        assert set(answer) == {"item", "item_name", "requirements", "must_submit"}
        for requirement in answer["requirements"]:
            assert set(requirement) == set(questions.MEMBERS)
    seen = {requirement["disposition"] for answer in answers for requirement in answer["requirements"]}
    assert seen >= {"held", "alternative_held", "held_elsewhere", "expired", "deferred", "not_required", "submit"}
    assert seen <= set(report.DISPOSITIONS)
    assert [_timeless(answer) for answer in answers] == [_timeless(answer) for answer in demo.written[1]["answers"]]


def test_what_follows_an_answer(demo: Demo) -> None:
    first, second = (written["then"] for written in demo.written)
    assert first["evidence"]["material"] == "business-licence"
    agreed = {"certificate_number", "status", "valid_to", "holder.holder", "attributes.registered_on"}
    assert set(first["evidence"]["fields"]) == agreed
    assert set(first["deposit"]["before"]) - set(first["deposit"]["after"]) == {"premises-proof"}
    assert second["deposit"]["before"] == second["deposit"]["after"] == first["deposit"]["after"], "handed in once"
    page = Path(first["notice"]["file"]).read_text(encoding="utf-8")
    assert page.startswith("<!") and second["notice"]["item"] in page
    assert 0 < first["burden"]["asked"] < first["burden"]["demanded"]
    # The same matters once more on the same day count once; midnight in China may lie between the two runs.
    counted = ("asked", "demanded", "held", "alternative_held", "held_elsewhere")
    once = {name: first["burden"][name] for name in counted}
    twice = {name: 2 * count for name, count in once.items()}
    assert {name: second["burden"][name] for name in counted} in (once, twice)


def _timeless(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without the minute at which a partner's index was last read."""
    lines = [
        {**line, "reason": ""} if line["disposition"] == "held_elsewhere" else line for line in answer["requirements"]
    ]
    return {**answer, "requirements": lines}


def test_every_kind_of_source_ran(demo: Demo) -> None:
    kinds = {source.name: source.connector for source in departments.all_sources()}
    ran = {kinds[run["source"]] for run in demo.written[0]["runs"]}
    assert ran == {"rest", "database", "files", "sftp", "s3", "hub"}


def test_openlineage_tells_of_every_source(demo: Demo) -> None:
    events = [json.loads(line) for line in (demo.home.path / "logs" / "openlineage.jsonl").read_text().splitlines()]
    done = {
        (event["job"]["name"], dataset["namespace"], dataset["name"])
        for event in events
        if event["eventType"] == "COMPLETE"
        for dataset in event.get("outputs", ())
    }
    for source in departments.all_sources():
        assert (f"{source.name}.publish", "yici://sh", f"sources/{source.name}") in done
        assert (f"{source.name}.publish", "yici://sh", f"holdings/{source.entity}") in done


def test_a_holding_leads_back_to_its_row(demo: Demo) -> None:
    holdings = [entry for answer in demo.ask() for line in answer["requirements"] for entry in line.get("holdings", ())]
    found = json.loads(demo.run("hub", "lineage", "holding", holdings[0]["holding"], "--json"))
    (origin, *_) = found["observations"]
    back = json.loads(demo.run("hub", "lineage", "file", origin["sha256"], "--limit", "100000", "--json"))
    assert (origin["row"], found["holding"]) in {(row["row"], row["holding"]) for row in back[0]["listed"]}


def test_prometheus_sees_runs_and_freshness(demo: Demo) -> None:
    text = requests.get(f"{demo.written[-1]['addresses']['api']}/metrics", timeout=30).text
    for run in demo.written[0]["runs"]:
        assert f'yici_source_late{{source="{run["source"]}"}} 0.0' in text
        assert f'yici_rows_total{{source="{run["source"]}",state="accepted"}} {run["accepted"]:.1f}' in text


def test_both_hubs_did_all_that_hubs_do(demo: Demo) -> None:
    first, second = (written["between"] for written in demo.written[:2])
    for found in (first, second):
        assert set(found["agreements"]) == {"sh", "zj"}
        assert found["reconciled"]["equal"] and found["reconciled"]["records"]["here"] > 1000
        assert all(one["ok"] for name in ("checks", "ledgers") for one in found[name].values())
        assert [step["step"] for step in found["checks"]["sh"]["steps"]].count("agreement") == 2
        assert {hub: record["direction"] for hub, record in found["records"].items()} == {
            "sh": "asked",
            "zj": "answered",
        }
        assert {record["message"] for record in found["records"].values()} == {found["evidence"]["message"]}
        assert len(found["tables"]) == 3 and all(0 < one["published"] == one["rows"] for one in found["tables"])
    assert second["agreements"] == first["agreements"], "agreed once"
    assert [one["version"] for one in second["tables"]] == [one["version"] for one in first["tables"]], (
        "nothing differs"
    )
    assert second["evidence"]["message"] != first["evidence"]["message"], "a new case is a new disclosure"
    file = Path(first["profile"])
    assert file.stat().st_mode & 0o777 == 0o600


def test_evidence_is_what_the_other_hub_holds(demo: Demo) -> None:
    question, answer, entry = demo.elsewhere()
    body, sealed = demo.intake().evidence_elsewhere(entry["handle"], answer, question.party(entry["holder"]))
    given = json.loads(body)
    [number] = {holder["value"] for holder in given["certificate"]["holders"]}
    assert question.id == f"cn.ric:{number}"
    held = [
        json.loads(row.document)
        for row in demo.store(
            demo.there,
            f"""SELECT m.document FROM holding AS h JOIN mapped_row AS m ON m.holding = h.key AND m.id = h.mapped
            WHERE h.material = '{given["material"]}' AND h.status = 'in_force'""",
        )
        if number in row.document
    ]
    shown = given["certificate"]
    matching = [
        document
        for document in held
        if all(document["attributes"][name] == value for name, value in shown["attributes"].items())
    ]
    assert matching and shown["attributes"] and set(given["fields"]) == set(FIELDS[given["material"]])
    assert not {"status", "valid_from", "valid_to"} & shown.keys(), "nobody asked for them"
    assert number not in sealed
    message = given["given"]["answer"]
    here, there = (demo.told(home, "ledger", "show", message) for home in (demo.home, demo.there))
    assert (here["direction"], there["direction"], here["message"], there["message"]) == (
        "asked",
        "answered",
        message,
        message,
    )
    assert (
        here["request"]["sealed"] == there["request"]["sealed"] and here["reply"]["sealed"] == there["reply"]["sealed"]
    )
    assert here["reply"]["sealed"] == sealed
    [fetched] = demo.told(demo.home, "explain", answer)["evidence"]
    assert (fetched["provider"], fetched["message"], fetched["holding"]) == ("zj", message, entry["handle"])
    for home, column, value in ((demo.home, "provider", "zj"), (demo.there, "receiver", "sh")):
        view = demo.told(home, "subject", "view", "--id", question.id, "--section", "fetched")["fetched"]["entries"]
        assert (value, question.case) in {(one[column], one["case"]) for one in view if one["message"] == message}


def test_the_stock_client_reads_what_the_agreement_covers(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", services.HOST)
    between = demo.written[-1]["between"]
    share = between["agreements"]["zj"].partition("/")[0]
    for material, holder in (
        ("business-licence", "holder"),
        ("household-register", "holder"),
        ("social-insurance-record", "insured"),
    ):
        read = delta_sharing.load_as_pandas(f"{between['profile']}#{share}.materials.{material}")
        held = demo.store(
            demo.there,
            f"""SELECT m.document FROM holding AS h JOIN mapped_row AS m ON m.holding = h.key AND m.id = h.mapped
            JOIN source AS s ON s.name = h.source
            WHERE h.material = '{material}' AND starts_with(coalesce(h.region, s.region), '33')""",
        )
        documents = [json.loads(row.document) for row in held]
        wanted = sorted(
            (
                one["status"],
                str(one["certificate_number"]),
                next(h["value"] for h in one["holders"] if h["role"] == holder),
            )
            for one in documents
        )
        found = sorted(
            zip(read["status"], map(str, read["certificate_number"]), read[f"holder.{holder}.value"], strict=True)
        )
        assert found == wanted and len(found) > 500, material


def test_shanghai_gives_a_table_on_its_schedule(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under Airflow's scheduler: published by the DAG, of a few agreed columns, and again whenever holdings changed."""
    monkeypatch.setenv("NO_PROXY", services.HOST)
    runs = demo.airflow()._get("/dags/share-publish/dagRuns", limit=100)["dag_runs"]
    assert {run["run_type"] for run in runs} >= {"manual", "asset_triggered"}
    manual = [run for run in runs if run["run_type"] == "manual"]
    assert [run["state"] for run in manual] == ["success"] * len(manual)
    first = min(run["dag_run_id"] for run in manual)
    instances = demo.airflow()._get(f"/dags/share-publish/dagRuns/{first}/taskInstances")
    states = {task["task_id"]: task["state"] for task in instances["task_instances"]}
    assert states == {"due": "success", "publish": "success"}
    named = demo.written[-1]["between"]["agreements"]["sh"].partition("/")[0]
    [share] = demo.told(demo.home, "share", "list")
    [(table, made)] = share["tables"].items()
    assert share["agreement"].startswith(named) and table == "business-licence" and made["rows"] > 1000
    endpoint = f"{demo.written[-1]['addresses']['api']}/delta"
    profile = tmp_path / "sh.share"
    profile.write_text(json.dumps(demo.told(demo.home, "share", "profile", named, "--endpoint", endpoint)))
    read = delta_sharing.load_as_pandas(f"{profile}#{named}.materials.business-licence")
    assert len(read) == made["rows"]
    assert set(read.columns) == {"certificate_number", "name", "status", "valid_to", "attributes.registered_on",
                                 "holder.holder.scheme", "holder.holder.value", "holder.holder.name"}  # fmt: skip


def test_prometheus_sees_the_exchange(demo: Demo) -> None:
    text = requests.get(f"{demo.written[-1]['addresses']['api']}/metrics", timeout=30).text
    for line in (
        'yici_exchange_messages_total{direction="asked",kind="index.page",outcome="ok",peer="zj"}',
        'yici_exchange_messages_total{direction="asked",kind="evidence.request",outcome="ok",peer="zj"}',
        'yici_peer_resting{peer="zj"} 0.0',
        'side="receiver"',
    ):
        assert line in text, line
    numbers = [line for line in text.splitlines() if line.startswith("yici_exchange_refusals_total")]
    assert all(line.endswith(" 0.0") for line in numbers if 'direction="asked"' in line)


def test_the_partner_hub_away_makes_no_answer_wrong(demo: Demo) -> None:
    before = demo.ask()
    elsewhere = [
        line for answer in before for line in answer["requirements"] if line["disposition"] == "held_elsewhere"
    ]
    assert elsewhere and all(line["elsewhere"][0]["hub"] == "zj" for line in elsewhere)
    question, answer, entry = demo.elsewhere()
    assert demo.yici(demo.there, "down").returncode == 0
    assert services.processes(demo.there) == []
    body = {"id": question.party(entry["holder"]), "seconds": 3}
    away = demo.intake().sent(entry["handle"], answer, body)
    told = away.json()
    assert (away.status_code, told["code"], told["fault"]) == (503, "partner-away", "partner"), told
    assert int(away.headers["Retry-After"]) > 0 and question.id.partition(":")[2] not in away.text
    typed = demo.yici(demo.home, "peer", "check", "zj")
    assert typed.returncode == 1 and "✗" in typed.stdout and "→" in typed.stdout
    told = [[line["disposition"] for line in answer["requirements"]] for answer in before]
    assert [[line["disposition"] for line in answer["requirements"]] for answer in demo.ask()] == told
    process = demo.start("hub", "check", "zj-hub-index")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "→" in output
    assert demo.yici(demo.there, "up", "--without-airflow").returncode == 0
    for _ in range(10):
        back = demo.intake().sent(entry["handle"], answer, body)
        if back.status_code == 200:
            break
        assert back.json()["code"] == "partner-resting", back.text
        time.sleep(int(back.headers["Retry-After"]))
    assert back.status_code == 200, "what was refused used nothing up: the same answer opens it"
    told = demo.told(demo.home, "ledger", "list", "--kind", "evidence.request", "--limit", "4")
    assert [record["outcome"] for record in told] == ["ok", "sent", "partner-away", "sent"], "the newest first"
    assert "✗" not in demo.run("hub", "check", "zj-hub-index"), "it came back where it was, as who it was"


def test_addresses_answer_and_the_taken_port_was_avoided(demo: Demo) -> None:
    addresses = demo.written[1]["addresses"]
    assert set(addresses) == {"api", "airflow", "credentials_file"}
    assert addresses["api"] != f"http://127.0.0.1:{stack.API_PORT}"
    assert services.answers(f"{addresses['api']}/readyz")
    assert services.answers(f"{addresses['airflow']}/api/v2/version")


def test_credentials_are_real_and_the_owners_alone(demo: Demo) -> None:
    file = Path(demo.written[1]["addresses"]["credentials_file"])
    assert file.stat().st_mode & 0o777 == 0o600
    known = json.loads(file.read_text())
    assert set(known) == {"intake", "airflow"}
    assert set(known["intake"]) == {"client_id", "client_secret", "token_url"}
    intake = (known["intake"]["client_id"], known["intake"]["client_secret"])
    grant = {"grant_type": "client_credentials"}
    assert requests.post(known["intake"]["token_url"], data=grant, auth=intake, timeout=30).status_code == 200
    airflow = demo.written[1]["addresses"]["airflow"]
    wrong = {"username": known["airflow"]["username"], "password": "guessed"}
    assert requests.post(f"{airflow}/auth/token", json=wrong, timeout=30).status_code == 401
    assert requests.get(f"{airflow}/api/v2/dags", timeout=30).status_code == 401
    assert demo.airflow()._get("/dags", limit=1)["dags"]


def test_everything_listens_on_the_loopback_interface_only(demo: Demo) -> None:
    listening = set()
    for process in services.processes(demo.home):
        with contextlib.suppress(psutil.NoSuchProcess):  # a task that has ended meanwhile
            listening |= {entry.laddr.ip for entry in process.net_connections("inet") if entry.status == "LISTEN"}
    assert listening == {"127.0.0.1"}


def test_the_report_ran_on_the_assets(demo: Demo) -> None:
    runs = demo.airflow()._get("/dags/holdings-report/dagRuns", limit=100)["dag_runs"]
    assert runs and all(run["run_type"] == "asset_triggered" for run in runs)
    counted = json.loads((demo.home.path / "reports" / "holdings.json").read_text())
    licences = sum(run["accepted"] for run in demo.written[0]["runs"] if run["source"].endswith("amr-enterprises"))
    assert 0 < counted["materials"]["business-licence"]["holdings"] <= licences


def test_no_identifier_reaches_logs_or_airflow(demo: Demo) -> None:
    people = [line.split('"gmsfhm": "')[1][:18] if '"gmsfhm": "' in line else json.loads(line)["gmsfhm"]
              for line in (demo.home.path / "demo" / "ga" / "residents.jsonl").read_text(encoding="utf-8").splitlines()[:300]
              if line.startswith("{")]  # fmt: skip
    people = [value for value in people if isinstance(value, str) and len(value) == 18]
    assert len(people) > 200
    text = "".join(path.read_text(errors="replace") for path in (demo.home.path / "logs").rglob("*") if path.is_file())
    assert "gate_batch" in text
    assert [value for value in people if value in text] == []


def test_a_halted_batch_shows_as_such_and_is_not_repeated(demo: Demo, tmp_path: Path) -> None:
    source = "sh-amr-enterprises"
    demo.run("hub", "synth", "--people", "50", "--companies", "80000", "--seed", "5", "--out", str(tmp_path / "many"))
    drop, brought = demo.home.path / "demo" / "amr" / "sh", []
    earlier = time.time() - 60
    for file in (tmp_path / "many" / "amr" / "sh").glob("*.csv"):
        brought.append(drop / f"many-{file.name}")
        shutil.copy(file, brought[-1])
        os.utime(brought[-1], (earlier, earlier))
    before = json.loads(demo.run("hub", "batch", "list", "--json"))
    airflow = demo.airflow()
    try:
        run = airflow.trigger(source, f"test__{time.time_ns()}")
        airflow.follow([run], lambda runs: None, lambda: None)
    finally:
        for file in brought:
            file.unlink()
    assert run.state == "failed" and run.failed_tasks == ["gate_batch"]
    assert airflow.halted(run)
    instances = airflow._get(f"/dags/{source}/dagRuns/{run.run_id}/taskInstances")["task_instances"]
    states = {task["task_id"]: task["state"] for task in instances}
    assert states["merge"] == states["publish"] == "upstream_failed"
    assert {task["try_number"] for task in instances if task["task_id"] == "gate_batch"} == {1}
    log = next((demo.home.path / "logs" / "airflow").glob(f"dag_id={source}/run_id={run.run_id}/task_id=gate_batch/*"))
    assert "halted: " in log.read_text(encoding="utf-8")
    after = json.loads(demo.run("hub", "batch", "list", "--json"))
    new = [batch for batch in after if batch not in before]
    assert [batch["state"] for batch in new] == ["halted"]


@pytest.mark.slow
def test_an_interrupt_stops_everything_and_the_demo_works_again(demo: Demo) -> None:
    """Last: it stops the services that the tests above use."""
    process = demo.start("demo.run")
    assert process.stdout
    for line in process.stdout:
        if "triggering" in line:
            break
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 130, rest
    assert demo.nothing_runs()
    demo.demo()
    assert [run["state"] for run in demo.written[-1]["runs"]] == ["success"] * len(SOURCES)
    assert sum(run["accepted"] for run in demo.written[-1]["runs"]) == 0
    demo.run("hub", "down")
    assert demo.nothing_runs()


@pytest.mark.parametrize("seconds", [0.7, 2.5, pytest.param(7, marks=pytest.mark.slow)])
def test_an_interrupt_during_the_first_setup_leaves_nothing_running(fresh: Demo, seconds: float) -> None:
    process = fresh.start("demo.run")
    try:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 130, output
        assert fresh.nothing_runs()
    finally:
        process.kill()


@pytest.mark.slow
def test_a_killed_demo_is_cleared_up_by_down(fresh: Demo) -> None:
    process = fresh.start("demo.run")
    try:
        assert process.stdout
        for line in process.stdout:
            if "departments" in line:
                break
        process.kill()
        process.wait(10)
        assert not fresh.nothing_runs(), "otherwise this test shows nothing"
        fresh.run("hub", "down")
        assert fresh.nothing_runs()
    finally:
        process.kill()
