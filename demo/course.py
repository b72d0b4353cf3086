"""The course of the demo: start everything, let Airflow run the sources, ask sample questions, leave the services up.

The result is 0 when every run succeeded. Interrupted at any moment it stops whatever runs for the home.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from connectors.errors import YiciError
from demo import afterwards, departments, exchange, neighbour, questions
from demo.airflow import Airflow, Run
from demo.neighbour import reported
from demo.report import COUNTS, Report
from hub import agreements, database, home, interrupts, publication, schema, services, stack
from hub.home import Home
from hub.stack import Stack

REPORT_DAG, SHARES_DAG = "holdings-report", "share-publish"


def main() -> int:
    """Run the demo; the exit code."""
    # The demo is complete in itself: it leaves the operator's own database and landing zone alone.
    for name in ("YICI_DATABASE_URL", "YICI_LANDING_URL", "YICI_SOURCES", "YICI_DAGS", "YICI_HUB", "YICI_REGION"):
        os.environ.pop(name, None)
    here = home.current()
    os.environ["YICI_HOME"] = str(here.path)
    report = Report()
    with interrupts.interruptible():
        try:
            with services.exclusive(here):
                return _run(here, report)
        except KeyboardInterrupt:
            with interrupts.undisturbed():
                report.console.print(report.word("\n已中断，正在停止……", "\ninterrupted, stopping …"))
                services.stop_all(here)
            return 130
        except YiciError as error:
            report.console.print(f"[bold red]✗[/] {error.message()}", soft_wrap=True)
            if advice := error.advice():
                report.console.print(f"  → {advice}", soft_wrap=True, markup=False)
            logs = here.path / "logs"
            report.console.print(
                report.word(f"日志：{logs}；停止：make stop", f"logs: {logs}; stop: make stop"), soft_wrap=True
            )
            return error.exit_code


def _run(here: Home, report: Report) -> int:
    here.remember(hub="sh", region="310000")
    report.step("启动数据库、接口与 Airflow", "starting the database, the API and Airflow")
    publication.publish("demo", "make demo")
    started = stack.start(here, preferred=stack.end_outdated(here))
    report.step("生成演示部门的数据", "making the demo departments' data")
    folder = departments.make(here)
    report.step("启动各部门的服务器与浙江的数据枢纽", "starting the departments' servers and Zhejiang's hub")
    servers, entries = departments.open_all(here, folder)
    departments.wait(servers)
    second = neighbour.start(here, {name: entries[name] for name in departments.ZHEJIANG})
    departments.connect(here, {name: entry for name, entry in entries.items() if name in departments.SHANGHAI})
    secret = _agree(here, started)
    report.step("等待服务就绪", "waiting for the services")
    started.wait()
    airflow = _airflow(started)
    known = departments.all_sources()
    names = [source.name for source in known if source.connector != "hub"]
    later = [*(source.name for source in known if source.connector == "hub"), SHARES_DAG]
    airflow.wait_for([*names, REPORT_DAG, *later])
    airflow.end_unfinished([*names, REPORT_DAG, *later])
    runs = _drive(airflow, started, report, [*names, REPORT_DAG], names)
    elsewhere = second.wait()
    report.step(
        "与浙江互录名片、签署协议，共享整表", "cards and agreements with Zhejiang's hub, whole tables published"
    )
    given, offered = second.agree(), exchange.offer(here, second)
    publishing = second.begin("share", "publish")
    # What Zhejiang announces is read when its own sources have run.
    runs += _drive(airflow, started, report, later, later)
    published = reported(publishing)
    rows = _rows([run for run in runs if run.dag_id != SHARES_DAG])
    report.runs(rows)
    report.elsewhere(second.api.address, elsewhere)
    failed = [run for run in runs if run.state != "success"]
    answers: list[dict[str, Any]] = []
    then: dict[str, Any] = {}
    between: dict[str, Any] = {}
    if not failed:
        profile = exchange.profile(here, second, given)
        reading = exchange.read(here, profile)  # while questions are asked
        report.step("通过接口提问", "asking through the API")
        intake = questions.Intake(started.api.address, questions.CLIENT, secret, report.language)
        asked = []
        for question in questions.choose(folder, dt.date.today()):
            for answer in intake.ask(question):
                asked.append((question, answer))
                report.answer(question.about[report.language], answer)
        answers = [answer for _, answer in asked]
        then = _then(here, report, intake, answers, folder)
        report.step(
            "两个枢纽之间：取证、整表、对账、台账", "between the hubs: evidence, tables, reconciliation, ledgers"
        )
        evidence = exchange.fetch(intake, asked)
        between = {
            "agreements": {neighbour.NAME: given, exchange.HERE: offered},
            "evidence": evidence,
            "profile": str(profile),
            "tables": exchange.compared(published, reported(reading)),
            **exchange.proved(second, evidence),
        }
        report.between(between, str(second.home.path))
    else:
        reasons = {run.dag_id: reason for run in failed if (reason := airflow.halted(run))}
        report.failed(failed, reasons, started.airflow.address, str(here.path / "logs" / "airflow"))
    file = here.path / "credentials.json"
    addresses = {"api": started.api.address, "airflow": started.airflow.address, "credentials_file": str(file)}
    essence = [questions.essence(answer) for answer in answers]
    written = {"runs": rows, "answers": essence, "then": then, "between": between, "addresses": addresses}
    _write(here.path / "demo.json", written)
    report.addresses(started.api.address, started.airflow.address, str(file), str(second.home.path))
    succeeded = not failed and all(run["state"] == "success" for run in elsewhere) and exchange.right(between)
    return 0 if succeeded else 1


def _then(
    here: Home, report: Report, intake: questions.Intake, answers: list[dict[str, Any]], folder: Path
) -> dict[str, Any]:
    """What an intake system does with answers, and what the data office reads out of them."""
    report.step("取证、提交、告知、统计", "evidence, a deposit, the notice, the burden")
    found: dict[str, Any] = {"evidence": afterwards.fetch(intake, answers)}
    if question := afterwards.hands_in(folder, dt.date.today()):
        found["deposit"] = afterwards.hand_in(intake, question)
    page = here.path / "notice.html"
    found["notice"] = {"item": afterwards.notice(intake, answers, page), "file": str(page)}
    found["burden"] = afterwards.asked_for(report.language)
    report.afterwards(found, answers[0]["answer"])
    return found


def _agree(here: Home, started: Stack) -> str:
    """The demo's intake system may ask about the demo's items; its secret stays the same from demo to demo."""
    known = stack.read_credentials(here).get("intake", {}).get("client_secret")
    secret = agreements.add(
        questions.CLIENT, known, "演示综合窗口 Demo intake", questions.ITEMS, [questions.PURPOSE],
        fields=afterwards.FIELDS, deposits=[afterwards.PAPER], replace=True,
    )  # fmt: skip
    token_url = f"{started.api.address}/oauth2/token"
    stack.credentials(here, intake={"client_id": questions.CLIENT, "client_secret": secret, "token_url": token_url})
    return secret


def _airflow(started: Stack) -> Airflow:
    user = stack.read_credentials(started.home)["airflow"]
    return Airflow(started.airflow.address, user["username"], user["password"])


def _drive(airflow: Airflow, started: Stack, report: Report, dags: list[str], names: list[str]) -> list[Run]:
    """Unpause ``dags``, trigger the sources ``names``, and follow them while the scheduler runs them."""
    report.step(f"触发 {len(names)} 个 DAG", f"triggering {len(names)} DAGs")
    run_id = f"demo__{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S%f}"
    runs = [airflow.trigger(name, run_id) for name in names]
    for name in dags:
        airflow.unpause(name)
    with report.following() as show:
        airflow.follow(runs, show, lambda: _alive(started))
    return runs


def _alive(started: Stack) -> None:
    """A part of the hub that has ended will never finish a run."""
    for part in started.ended():
        services.wait(part, lambda: False, 0)


def _rows(runs: list[Run]) -> list[dict[str, Any]]:
    """State and seconds from Airflow, counts from the store."""
    columns = [schema.batch.c.source, *(schema.batch.c[name] for name in COUNTS)]
    chosen = sa.tuple_(schema.batch.c.source, schema.batch.c.run_id).in_([(run.dag_id, run.run_id) for run in runs])
    with database.engine().connect() as connection:
        counted = {row["source"]: row for row in connection.execute(sa.select(*columns).where(chosen)).mappings()}
    return [
        {
            "source": run.dag_id,
            "dag_id": run.dag_id,
            "run_id": run.run_id,
            "state": run.state,
            **{name: int(counted[run.dag_id][name]) if run.dag_id in counted else 0 for name in COUNTS},
            "seconds": run.seconds,
        }
        for run in runs
    ]


def _write(path: Path, value: dict[str, Any]) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)
