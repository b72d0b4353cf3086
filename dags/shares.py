"""Whole tables for partner hubs: the next version of each that is behind, when holdings have changed and once an hour.

The hour is for what changes without a run: papers handed in, decisions, agreements that began or are over.
"""

from __future__ import annotations

from airflow.sdk import Asset, AssetAny, AssetOrTimeSchedule, dag, get_current_context, task

from connectors import source as sources
from hub import tasks

HELD = sorted({described.entity for described in sources.readable()[0] if described.connector != "hub"})


@dag(
    dag_id="share-publish",
    dag_display_name="share-publish 发布共享表",
    description="The next version of every shared table that is behind the store, as `yici share publish`",
    schedule=AssetOrTimeSchedule(
        timetable=tasks.timetable("17 * * * *"),
        assets=AssetAny(*(Asset(f"yici://holdings/{entity}", group="yici") for entity in HELD)),
    ),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    default_args=tasks.retries(),
    tags=["exchange"],
)
def share_publish() -> None:
    @task
    def due() -> list[str]:
        """Ids of the agreements whose tables are behind; what agreements that are over left behind goes."""
        return tasks.call("hub.exchange.share_schedule", "due", get_current_context())

    @task
    def publish(agreement: str) -> dict[str, int]:
        """Rows by table of one agreement, each at its latest version now."""
        return tasks.call("hub.exchange.share_schedule", "publish", get_current_context(), agreement=agreement)

    publish.expand(agreement=due())


share_publish()
