"""Copied into the plugins folder of the harness's Airflow: in the process of a task that is about to run, sets its fault."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin


class Listener:
    @hookimpl
    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        home = Path(os.environ["YICI_HOME"])
        told = json.loads((home / "faults.json").read_text()).get(task_instance.dag_id)
        mark = home / f"struck-{task_instance.dag_id}"
        if told is None or mark.exists() or not told["stage"].startswith(f"{task_instance.task_id}:"):
            return
        from bench.faults.probe import Probe
        from bench.faults.schedules import Fault, Point

        def die() -> None:
            time.sleep(told["after"])
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

        def tell(**message: Any) -> None:
            if "shot" in message:
                mark.touch()
            elif "begin" in message and told["point"] is None:
                threading.Thread(target=die, daemon=True).start()

        fault = Fault("kill", point=Point(*told["point"])) if told["point"] else None
        Probe(home, None, fault, 0.0, {}, tell).install()


class FaultsPlugin(AirflowPlugin):
    name = "faults"
    listeners = [Listener()]  # noqa: RUF012 - as Airflow reads it
