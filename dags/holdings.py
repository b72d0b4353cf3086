"""Scheduled on the holdings themselves: whenever some changed, count what is held and how fresh each source is."""

from __future__ import annotations

from airflow.sdk import Asset, AssetAny, dag, get_current_context, task

from connectors import source as sources
from hub import tasks

ENTITIES = sorted({described.entity for described in sources.all_sources()})


@dag(
    dag_id="holdings-report",
    description="Counts per material type and freshness per source, in reports/holdings.json of the home",
    schedule=AssetAny(*(Asset(f"yici://holdings/{entity}", group="yici") for entity in ENTITIES)),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    tags=["report"],
)
def holdings_report() -> None:
    @task
    def count() -> dict[str, int]:
        return tasks.call("hub.inventory", "report", get_current_context())

    count()


holdings_report()
