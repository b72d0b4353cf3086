"""``yici up`` and ``yici down`` as commands; the whole start is in ``e2e/test_demo.py``."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import requests
import sqlalchemy as sa

from hub import catalogue, embedded, orchestrator, services, stack
from hub.home import Home, current
from tests.test_services import ANSWERING, foreign

ROOT = Path(__file__).parent.parent


def yici(home: Path, *arguments: str, root: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command of the checkout ``root``."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("YICI", "AIRFLOW"))}
    environment |= {"YICI_HOME": str(home), "YICI_LANG": "en", **variables}
    command = [sys.executable, "-m", "hub", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root, timeout=120, check=False)


def test_down_on_a_fresh_home_makes_nothing(tmp_path: Path) -> None:
    done = yici(tmp_path / "home", "down")
    assert done.returncode == 0 and "nothing was running" in done.stderr
    assert not (tmp_path / "home").exists()


def test_up_without_dags_says_so_and_leaves_nothing_running(tmp_path: Path) -> None:
    done = yici(tmp_path / "home", "up", YICI_DAGS=str(tmp_path / "none"))
    assert done.returncode == 1 and "YICI_DAGS" in done.stderr
    assert done.stdout == ""
    home = Home(tmp_path / "home")
    assert services.processes(home) == [] and embedded._postmaster(home) is None


def test_without_airflow_there_are_no_passwords_to_name(tmp_path: Path, postgres_url: str) -> None:
    """The file is named where it is there, as after a start with Airflow."""
    home, external = tmp_path / "home", {"YICI_DATABASE_URL": postgres_url.replace("+psycopg", "")}
    try:
        assert yici(home, "db", "upgrade", **external).returncode == 0
        told = yici(home, "up", "--without-airflow", "--json", **external)
        assert told.returncode == 0, told.stderr
        assert set(json.loads(told.stdout)) == {"api"} and not (home / "credentials.json").exists()
        assert "credentials.json" not in (shown := yici(home, "up", "--without-airflow", **external)).stderr
        assert "yici down" in shown.stderr
        (home / "credentials.json").write_text("{}")
        named = json.loads(yici(home, "up", "--without-airflow", "--json", **external).stdout)["credentials_file"]
        assert named == str(home / "credentials.json")
        assert named in yici(home, "up", "--without-airflow", **external).stderr
    finally:
        yici(home, "down", **external)
    assert services.processes(Home(home)) == []


@pytest.mark.slow
def test_two_homes_that_start_at_once_get_a_port_each(tmp_path: Path, postgres_url: str) -> None:
    external = {"YICI_DATABASE_URL": postgres_url.replace("+psycopg", "")}
    homes = [tmp_path / "b1", tmp_path / "b2"]
    wanted = services.free_port(18770)
    for home in homes:
        Home(home).remember(api_port=str(wanted))
    try:
        assert yici(homes[0], "db", "upgrade", **external).returncode == 0
        shutil.copytree(homes[0] / "keys", homes[1] / "keys", dirs_exist_ok=True)
        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(lambda home: yici(home, "up", "--without-airflow", "--json", **external), homes))
        assert [each.returncode for each in done] == [0, 0], [each.stderr for each in done]
        addresses = [json.loads(each.stdout)["api"] for each in done]
        assert len(set(addresses)) == 2
        for home, address in zip(homes, addresses, strict=True):
            service = services.running(Home(home))[stack.API]
            assert service.address == address and service.listens()
        assert json.loads(yici(homes[0], "up", "--without-airflow", "--json", **external).stdout)["api"] == addresses[0]
    finally:
        for home in homes:
            yici(home, "down", **external)


@pytest.fixture
def here(store: sa.Engine) -> Iterator[Home]:
    """A home on the operator's own database."""
    home = current()
    yield home
    services.stop_all(home)


def looked_too_early(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """The first look finds ``port`` free: who listens there came after it."""
    free, seen = services.free_port, [port]
    monkeypatch.setattr(services, "free_port", lambda *given, **more: seen.pop() if seen else free(*given, **more))


def test_an_api_whose_port_another_took_gets_the_next(here: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with foreign(18870) as port:
        here.remember(api_port=str(port))
        looked_too_early(monkeypatch, port)
        lost = stack.start_api(here)
        assert lost.port == port
        api = stack.wait_api(here, lost)
    assert api.port != port and services.running(here) == {stack.API: api} and api.listens()


def test_a_listener_for_hubs_whose_port_another_took_gets_the_next(here: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    here.remember(hub="sh", region="310000")
    with foreign(18970) as port:
        looked_too_early(monkeypatch, port)
        lost = stack.start_exchange(here)
        assert lost is not None and lost.port == port
        exchange = stack.wait_exchange(here, lost)
    assert exchange is not None and exchange.port != port and exchange.listens()
    assert here.identity("exchange_port") == str(exchange.port), "its card names it"


def test_airflow_starts_anew_on_another_port_where_it_lost_one(here: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parts all know the address: here programs that keep it, and listen where they are told."""
    program = f"import os, sys, time; sys.argv[1:] = [os.environ['AIRFLOW__API__PORT']]\n{ANSWERING}"
    parts = dict.fromkeys(stack.AIRFLOW, ("timeit", "-n1", "-r1", "import time; time.sleep(600)"))
    monkeypatch.setattr(stack, "AIRFLOW", {**parts, stack.API_SERVER: ("timeit", "-n1", "-r1", program)})
    monkeypatch.setattr(orchestrator, "prepare", lambda *_: None)
    monkeypatch.setattr(stack.Stack, "_healthy", lambda *_: True)
    with foreign(19070) as port:
        looked_too_early(monkeypatch, port)
        begun = stack._airflow(here)
        api = stack.start_api(here)
        started = stack.Stack(here, api, begun[stack.API_SERVER], begun)
        assert started.airflow.port == port
        started.wait()
    assert started.airflow.port != port and started.airflow.listens() and started.ended() == []
    assert all(part.process() is None for part in begun.values()), "what knew the lost address runs no more"
    for part in started.parts.values():
        process = part.process()
        assert process is not None and process.environ()["AIRFLOW__API__PORT"] == str(started.airflow.port)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The code with a catalogue of its own, to be edited."""
    for package in ("connectors", "mappings", "quality", "hub", "demo"):
        shutil.copytree(ROOT / package, tmp_path / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "code"


@pytest.mark.slow
def test_what_is_published_is_what_is_served(tmp_path: Path, checkout: Path, postgres_url: str) -> None:
    home, external = tmp_path / "home", {"YICI_DATABASE_URL": postgres_url.replace("+psycopg", "")}
    card = checkout / "mappings" / "model" / "items" / "demo-elder-card.yml"
    first, today = card.read_text("utf-8"), catalogue.today()
    ended = f", to: {today - dt.timedelta(days=1)}}}"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return yici(home, *arguments, root=checkout, **external)

    def api() -> services.Running:
        return services.running(Home(home))["api"]

    def asked(path: str) -> requests.Response:
        return requests.get(f"{api().address}{path}", timeout=30)

    try:
        assert run("db", "upgrade").returncode == 0
        assert run("up", "--without-airflow").returncode == 0
        begun, loaded = api(), asked("/healthz").json()["catalogue"]
        # A version of today, published beside an API that has loaded the one before.
        card.with_name("demo-elder-card@1.yml").write_text(
            first.replace("{from: 2020-01-01}", "{from: 2020-01-01" + ended), "utf-8"
        )
        second = first.replace("version: 1", "version: 2").replace("from: 2020-01-01", f"from: {today}")
        card.write_text(second, "utf-8")
        told = run("items", "publish", "--json")
        assert [change["version"] for change in json.loads(told.stdout)] == [2]
        assert begun.address in told.stderr and "`yici up` restarts it" in told.stderr
        assert (asked("/readyz").status_code, asked("/readyz").json()["code"]) == (503, "catalogue-behind")
        assert run("up", "--without-airflow").returncode == 0
        anew = api()
        assert (anew.port, anew.pid != begun.pid, begun.process()) == (begun.port, True, None)
        assert asked("/readyz").json()["catalogue"] != loaded
        assert run("up", "--without-airflow").returncode == 0 and api() == anew, "what is up to date is left alone"
        # What was published is altered: nothing is published, started or stopped.
        card.write_text(second.replace("household-register", "residence-permit"), "utf-8")
        _refused(run("up", "--without-airflow"), card)
        _refused(run("items", "check"), card)
        assert api() == anew and asked("/readyz").status_code == 200
        card.write_text(f"{second}colour: red\n", "utf-8")
        assert "colour: unknown key" in run("up", "--without-airflow").stderr
        assert api() == anew and asked("/readyz").status_code == 200
        run("down")
        card.write_text(second.replace("household-register", "residence-permit"), "utf-8")
        _refused(run("up", "--without-airflow"), card)
        _refused(run("serve", "--port", str(services.free_port(9470))), card)
        assert services.processes(Home(home)) == []
    finally:
        run("down")


def _refused(done: subprocess.CompletedProcess[str], card: Path) -> None:
    assert done.returncode == 1
    assert f"{card}:10: version 2 was published and says something else now" in done.stderr, done.stderr


@pytest.mark.e2e
@pytest.mark.slow
def test_up_on_the_operators_own_database(tmp_path: Path, postgres_url: str) -> None:
    """Nothing embedded is started, and `down` leaves the operator's server alone."""
    home, external = tmp_path / "home", {"YICI_DATABASE_URL": postgres_url.replace("+psycopg", "")}
    try:
        assert yici(home, "up", **external).returncode == 1, "no tables yet"
        assert yici(home, "db", "upgrade", **external).returncode == 0
        first = yici(home, "up", "--json", **external)
        assert first.returncode == 0, first.stderr
        assert set(json.loads(first.stdout)) == {"api", "airflow", "credentials_file"}
        assert yici(home, "up", "--json", **external).stdout == first.stdout, "what runs is left alone"
        assert not (home / "postgres").exists()
    finally:
        done = yici(home, "down", **external)
    assert done.returncode == 0
    assert services.processes(Home(home)) == []
    with psycopg.connect(external["YICI_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT count(*) FROM source").fetchone() == (0,)


@pytest.mark.parametrize("command", ["up", "down", "serve"])
def test_help_comes_without_starting_anything(tmp_path: Path, command: str) -> None:
    done = yici(tmp_path / "home", command, "--help")
    assert done.returncode == 0 and "Example" in done.stdout
    assert not (tmp_path / "home").exists()
