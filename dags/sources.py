"""One DAG per source folder: fetch → map and gate, chunk by chunk → gate the batch → merge → publish."""

from __future__ import annotations

import logging

from airflow.sdk import Asset, chain, dag, get_current_context, task

from connectors import source as sources
from hub import tasks


@task
def fetch(source: str) -> list[dict[str, object]]:
    """Land what is new; one reference per chunk with rows to map. The run's id makes a repeat continue its batch."""
    context = get_current_context()
    fetched = tasks.call("hub.pipeline", "fetch", context, source=source, run_id=context["run_id"])
    context["ti"].xcom_push("batch", fetched["batch"])
    return [{"batch": fetched["batch"], "chunk": chunk} for chunk in fetched["chunks"]]


@task
def map_and_gate(batch: str, chunk: int) -> dict[str, object]:
    """Map one chunk into the exchange model and check its rows."""
    return tasks.call("hub.pipeline", "map_and_gate", get_current_context(), batch=batch, chunk=chunk)


@task(trigger_rule="none_failed")  # a batch without a changed row has no chunk: its mapping is skipped
def gate_batch(batch: str) -> dict[str, object]:
    """Check the batch as a whole; a failing check halts it here, before anything is merged."""
    return tasks.call("hub.pipeline", "gate_batch", get_current_context(), batch=batch)


@task
def merge(batch: str) -> dict[str, object]:
    """One transaction: ledger, quarantine, holdings, feed, cursor."""
    return tasks.call("hub.pipeline", "merge", get_current_context(), batch=batch)


@task
def publish(batch: str) -> dict[str, object]:
    """Close the batch; what is scheduled on the holdings runs next."""
    return tasks.call("hub.pipeline", "publish", get_current_context(), batch=batch)


def build(source: sources.Source) -> None:
    """The DAG of one source, named like its folder."""

    @dag(
        dag_id=source.name,
        dag_display_name=f"{source.name} {source.title.zh}",
        description=source.title.en,
        doc_md=f"{source.owner.zh} · {source.legal_basis.zh}\n\n{source.owner.en} · {source.legal_basis.en}",
        schedule=tasks.timetable(source.schedule) if source.schedule else None,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=True,
        default_args=tasks.retries(),
        tags=["source", source.entity, source.connector, source.region],
    )
    def pipeline_of_source() -> None:
        fetched = fetch(source.name)
        batch = fetched["batch"]
        mapped = map_and_gate.expand_kwargs(fetched)
        held = Asset(f"yici://holdings/{source.entity}", group="yici")
        own = Asset(f"yici://sources/{source.name}", group="yici")
        raw = Asset(f"yici://landing/{source.name}", group="yici")
        published = publish.override(inlets=[raw], outlets=[held, own])(batch)
        chain(mapped, gate_batch(batch), merge(batch), published)

    pipeline_of_source()


known, broken = sources.readable()
for described in known:
    build(described)
for error in broken:  # the other sources go on; `yici sources` tells the same
    logging.getLogger("yici.dags").error("%s", error)
