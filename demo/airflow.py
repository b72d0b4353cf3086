"""Airflow's REST API, as far as the demo needs it: unpause, trigger, follow, read back."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests

from connectors.errors import FatalError
from hub import tasks

FINISHED = ("success", "failed")
SECONDS = 30.0
POLL_SECONDS = 1.0
DAGS_SECONDS = 120.0
AHEAD = dt.timedelta(minutes=5)


@dataclass
class Run:
    """One DAG run. ``done`` of ``total`` task instances have ended; ``seconds`` from Airflow's own start and end."""

    dag_id: str
    run_id: str
    state: str = "queued"
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    failed_tasks: list[str] = field(default_factory=list)


class Airflow:
    """A session with the api-server at ``address``."""

    def __init__(self, address: str, username: str, password: str) -> None:
        self.address = address
        self._credentials = {"username": username, "password": password}
        self._session = requests.Session()
        self._since = (dt.datetime.now(dt.UTC) - 2 * AHEAD).isoformat()
        self._session.trust_env = False  # a proxy of the environment is no way to this machine
        self._sign_in()

    def wait_for(self, dag_ids: list[str]) -> None:
        """Until the dag-processor has read every DAG. FatalError ``demo-dags-missing``, with its import errors."""
        deadline = time.monotonic() + DAGS_SECONDS
        while True:
            known = {dag["dag_id"] for dag in self._get("/dags", limit=100, exclude_stale="true")["dags"]}
            if missing := sorted(set(dag_ids) - known):
                if time.monotonic() > deadline:
                    errors = self._get("/importErrors")["import_errors"]
                    reason = "; ".join(error["stack_trace"].strip().splitlines()[-1] for error in errors) or "-"
                    raise FatalError("demo-dags-missing", dags=", ".join(missing), reason=reason)
                time.sleep(POLL_SECONDS)
            else:
                return

    def end_unfinished(self, dag_ids: list[str]) -> None:
        """Mark runs that a stop cut off as failed, so that they do not hold up the new ones."""
        query = {"dag_ids": dag_ids, "states": ["queued", "running"], "page_limit": 100}
        for run in self._call("POST", "/dags/~/dagRuns/list", json=query)["dag_runs"]:
            self._call("PATCH", f"/dags/{run['dag_id']}/dagRuns/{run['dag_run_id']}", json={"state": "failed"})

    def trigger(self, dag_id: str, run_id: str) -> Run:
        """Ask for a run; it goes before one that the schedule may make in these minutes."""
        run_after = (dt.datetime.now(dt.UTC) - AHEAD).isoformat()
        body = {"dag_run_id": run_id, "logical_date": None, "run_after": run_after}
        self._call("POST", f"/dags/{dag_id}/dagRuns", json=body)
        return Run(dag_id, run_id)

    def unpause(self, dag_id: str) -> None:
        self._call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def follow(self, runs: list[Run], show: Callable[[list[Run]], None], check: Callable[[], None]) -> None:
        """Poll until every run has ended. ``check`` may raise, when waiting is of no use any more."""
        while True:
            self.read(runs)
            show(runs)
            if all(run.state in FINISHED for run in runs):
                return
            check()
            time.sleep(POLL_SECONDS)

    def read(self, runs: list[Run]) -> None:
        """Bring ``runs`` up to date: two requests, however many there are."""
        dag_ids, run_ids = [run.dag_id for run in runs], sorted({run.run_id for run in runs})
        query = {"dag_ids": dag_ids, "page_limit": 100, "run_after_gte": self._since}
        listed = self._call("POST", "/dags/~/dagRuns/list", json=query)["dag_runs"]
        found = {(entry["dag_id"], entry["dag_run_id"]): entry for entry in listed}
        tasks_query = {**query, "dag_run_ids": run_ids}
        instances = self._call("POST", "/dags/~/dagRuns/~/taskInstances/list", json=tasks_query)["task_instances"]
        for run in runs:
            if entry := found.get((run.dag_id, run.run_id)):
                run.state = entry["state"]
                run.seconds = _seconds(entry["start_date"], entry["end_date"])
            own = [task for task in instances if (task["dag_id"], task["dag_run_id"]) == (run.dag_id, run.run_id)]
            run.total = len(own)
            run.done = sum(task["state"] in (*FINISHED, "skipped", "upstream_failed") for task in own)
            run.failed_tasks = [task["task_id"] for task in own if task["state"] == "failed"]

    def halted(self, run: Run) -> str | None:
        """Why a gate stopped the run's batch, when one did."""
        for task in run.failed_tasks:
            path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task}/xcomEntries/{tasks.HALTED}"
            answer = self._request("GET", path)
            if answer.ok:
                value = answer.json()["value"]
                return str(value["message"]) if isinstance(value, dict) else str(value)
        return None

    def _get(self, path: str, **query: Any) -> Any:
        return self._call("GET", path, params=query)

    def _call(self, method: str, path: str, **options: Any) -> Any:
        answer = self._request(method, path, **options)
        if not answer.ok:
            raise FatalError("demo-airflow-refuses", path=f"/api/v2{path}", status=answer.status_code)
        return answer.json()

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        answer = self._once(method, path, **options)
        if answer.status_code == 401:
            self._sign_in()
            answer = self._once(method, path, **options)
        return answer

    def _once(self, method: str, path: str, **options: Any) -> requests.Response:
        try:
            return self._session.request(method, f"{self.address}/api/v2{path}", timeout=SECONDS, **options)
        except requests.RequestException:
            raise FatalError("demo-airflow-silent", address=self.address) from None

    def _sign_in(self) -> None:
        answer = self._session.post(f"{self.address}/auth/token", json=self._credentials, timeout=SECONDS)
        if not answer.ok:
            raise FatalError("demo-airflow-refuses", path="/auth/token", status=answer.status_code)
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"


def _seconds(start: str | None, end: str | None) -> float:
    if not start or not end:
        return 0.0
    return round((dt.datetime.fromisoformat(end) - dt.datetime.fromisoformat(start)).total_seconds(), 1)
