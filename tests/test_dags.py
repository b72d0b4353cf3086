"""The DAG folder: one DAG per source, light to parse, wired as the pipeline needs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from connectors import source as sources

ROOT = Path(__file__).parent.parent
HEAVY = {"pandas", "pyarrow", "great_expectations", "numpy", "duckdb"}

# In a process of its own: what is imported and how long it takes must not depend on other tests.
LOOK = """
import importlib.util, json, sys, time
import airflow.sdk
from airflow.sdk.definitions._internal.contextmanager import DagContext
before = set(sys.modules)
start = time.process_time()
found = {}
for place, file in enumerate(sys.argv[1:]):
    spec = importlib.util.spec_from_file_location(f"dag_file_{place}", file)
    module = importlib.util.module_from_spec(spec)
    DagContext.autoregistered_dags.clear()
    DagContext.current_autoregister_module_name = module.__name__
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    found.update({dag.dag_id: dag for dag, _ in DagContext.autoregistered_dags})
seconds = time.process_time() - start
def described(task):
    values = {"trigger_rule": str(getattr(task.trigger_rule, "value", task.trigger_rule)),
              "upstream": sorted(task.upstream_task_ids), "mapped": task.is_mapped}
    source = task.partial_kwargs if task.is_mapped else vars(task)
    policy = source.get("retry_policy")
    values["retries"] = source.get("retries")
    values["policy"] = policy.serialize() if policy else None
    values["backoff"] = source.get("retry_exponential_backoff")
    values["outlets"] = [asset.uri for asset in task.outlets or []]
    return values
def watched(timetable):
    condition = getattr(timetable, "asset_condition", None)
    return sorted(asset.uri for asset in condition.objects) if condition is not None else []
print(json.dumps({
    "seconds": seconds,
    "heavy": sorted({name.split(".")[0] for name in set(sys.modules) - before} & set(json.loads(sys.stdin.read()))),
    "dags": {name: {"schedule": type(dag.timetable).__name__, "expression": getattr(dag.timetable, "expression", None),
                    "on": watched(dag.timetable), "catchup": dag.catchup, "active": dag.max_active_runs, "paused": dag.is_paused_upon_creation,
                    "tasks": {task.task_id: described(task) for task in dag.tasks}}
             for name, dag in found.items()},
}))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "YICI"))}
    environment |= {"AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")), "PYTHONPATH": str(ROOT)}
    files = sorted(str(path) for path in (ROOT / "dags").glob("*.py"))
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *files], input=json.dumps(sorted(HEAVY)), capture_output=True, text=True,
        env=environment, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def source_dags(seen: dict[str, Any]) -> dict[str, Any]:
    names = {source.name for source in sources.all_sources(sources.PACKAGED)}
    dags = {name: dag for name, dag in seen["dags"].items() if name in names}
    assert len(dags) >= 7, "nothing can be said about DAGs that were not seen"
    return dags


def test_every_source_has_a_dag_of_its_name(source_dags: dict[str, Any]) -> None:
    assert set(source_dags) == {source.name for source in sources.all_sources(sources.PACKAGED)}


def test_parsing_imports_nothing_heavy(seen: dict[str, Any], source_dags: dict[str, Any]) -> None:
    assert seen["heavy"] == []


def test_parsing_takes_less_than_a_second_beyond_the_sdk(seen: dict[str, Any], source_dags: dict[str, Any]) -> None:
    assert seen["seconds"] < 1


def test_the_stages_come_in_order(source_dags: dict[str, Any]) -> None:
    for name, dag in source_dags.items():
        tasks = dag["tasks"]
        assert set(tasks) == {"fetch", "map_and_gate", "gate_batch", "merge", "publish"}, name
        assert tasks["fetch"]["upstream"] == []
        assert tasks["map_and_gate"]["upstream"] == ["fetch"] and tasks["map_and_gate"]["mapped"]
        assert "map_and_gate" in tasks["gate_batch"]["upstream"]
        assert "gate_batch" in tasks["merge"]["upstream"]
        assert "merge" in tasks["publish"]["upstream"]


def test_an_empty_batch_reaches_the_gate(source_dags: dict[str, Any]) -> None:
    """Mapping over no chunk is skipped; what follows must run all the same."""
    assert {dag["tasks"]["gate_batch"]["trigger_rule"] for dag in source_dags.values()} == {"none_failed"}


def test_only_retriable_errors_are_repeated(source_dags: dict[str, Any]) -> None:
    for dag in source_dags.values():
        for task in dag["tasks"].values():
            assert task["retries"] == 5 and task["backoff"] == 2
            assert task["policy"]["default"] == "fail"
            assert [rule["exception"] for rule in task["policy"]["rules"]] == ["connectors.errors.RetriableError"]


def test_schedules_are_those_of_the_folders(source_dags: dict[str, Any]) -> None:
    for source in sources.all_sources(sources.PACKAGED):
        dag = source_dags[source.name]
        assert dag["expression"] == source.schedule, source.name
        assert (dag["schedule"] == "CronTriggerTimetable") == (source.schedule is not None)
        assert (dag["catchup"], dag["active"], dag["paused"]) == (False, 1, True)


def test_publishing_updates_the_assets_that_the_report_is_scheduled_on(
    seen: dict[str, Any], source_dags: dict[str, Any]
) -> None:
    for source in sources.all_sources(sources.PACKAGED):
        outlets = source_dags[source.name]["tasks"]["publish"]["outlets"]
        assert outlets == [f"yici://holdings/{source.entity}", f"yici://sources/{source.name}"]
    assert seen["dags"]["holdings-report"]["schedule"] == "AssetTriggeredTimetable"


def test_whole_tables_are_published_when_holdings_change_and_by_the_hour(seen: dict[str, Any]) -> None:
    dag = seen["dags"]["share-publish"]
    assert (dag["schedule"], dag["catchup"], dag["active"], dag["paused"]) == ("AssetOrTimeSchedule", False, 1, True)
    held = {
        f"yici://holdings/{source.entity}"
        for source in sources.all_sources(sources.PACKAGED)
        if source.connector != "hub"
    }
    assert set(dag["on"]) == held and len(held) > 5, "of what is shared, and not of what partners announce"
    tasks = dag["tasks"]
    assert set(tasks) == {"due", "publish"} and tasks["publish"]["mapped"] and tasks["publish"]["upstream"] == ["due"]
    for task in tasks.values():
        assert task["retries"] == 5 and task["policy"]["default"] == "fail"


CALL = """
import json, sys
from connectors.errors import BatchHalted, FatalError, RetriableError
from hub import tasks
NUMBER = "31010119900101" + "1234"  # in two parts: a traceback may show a line of code
class Instance:
    pushed = {}
    def xcom_push(self, key, value): self.pushed[key] = value
def unreachable(): raise RetriableError("services-busy", pid=7)
def wrong(): raise FatalError("services-busy", pid=7)
def stopped():
    try: raise ValueError(NUMBER)
    except ValueError as error: raise BatchHalted("services-busy", pid=7, batch="b1") from error
def bug(): raise KeyError(NUMBER)
here = sys.modules[__name__]
seen = {}
for name in ("unreachable", "wrong", "stopped", "bug"):
    try: tasks.call("__main__", name, {"ti": Instance()})
    except BaseException as error:
        seen[name] = [type(error).__name__, str(error), error.__cause__ is None and error.__suppress_context__]
print(json.dumps({"seen": seen, "pushed": Instance.pushed}))
"""


def test_errors_become_what_airflow_does_next(tmp_path: Path) -> None:
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "YICI_LANG": "en"}
    done = subprocess.run(
        [sys.executable, "-c", CALL], capture_output=True, text=True, env=environment, timeout=60, check=True
    )
    result = json.loads(done.stdout.splitlines()[-1])
    seen = result["seen"]
    assert seen["unreachable"][0] == "RetriableError"
    assert (
        seen["wrong"][0] == "AirflowFailException"
        and "process 7" in seen["wrong"][1]
        and "yici down" in seen["wrong"][1]
    )
    assert seen["stopped"][0] == "AirflowFailException" and seen["stopped"][1].startswith("halted: ")
    assert seen["bug"][:2] == ["AirflowFailException", "KeyError; the place is in the log above"]
    assert all(hidden for _, _, hidden in seen.values()), "what is underneath must not be printed"
    assert result["pushed"]["halted"]["batch"] == "b1" and result["pushed"]["halted"]["code"] == "services-busy"
    assert "310101199001011234" not in done.stdout + done.stderr
