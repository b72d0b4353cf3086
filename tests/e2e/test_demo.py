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

import psutil
import pytest
import requests

from demo import departments, neighbour, questions, report
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

    def ask(self) -> list[dict[str, Any]]:
        """The demo's questions once more, as its intake system asks them."""
        intake = json.loads((self.home.path / "credentials.json").read_text())["intake"]
        client = questions.Intake(
            self.written[-1]["addresses"]["api"], intake["client_id"], intake["client_secret"], "en"
        )
        asked = questions.choose(self.home.path / "demo", dt.date.today())
        return [answer for question in asked for answer in client.ask(question)]


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


def test_the_partner_hub_away_makes_no_answer_wrong(demo: Demo) -> None:
    before = demo.ask()
    elsewhere = [
        line for answer in before for line in answer["requirements"] if line["disposition"] == "held_elsewhere"
    ]
    assert elsewhere and all(line["elsewhere"][0]["hub"] == "zj" for line in elsewhere)
    there = neighbour.home_of(demo.home)
    environment = {**os.environ, "YICI_HOME": str(there.path), "YICI_LANG": "en"}
    subprocess.run([sys.executable, "-m", "hub", "down"], check=True, env=environment, capture_output=True)
    assert services.processes(there) == []
    told = [[line["disposition"] for line in answer["requirements"]] for answer in before]
    assert [[line["disposition"] for line in answer["requirements"]] for answer in demo.ask()] == told
    process = demo.start("hub", "check", "zj-hub-index")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "→" in output
    subprocess.run(
        [sys.executable, "-m", "hub", "up", "--without-airflow"], check=True, env=environment, capture_output=True
    )
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


@pytest.mark.parametrize("seconds", [0.7, 2.5, 7])
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
