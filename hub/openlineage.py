"""OpenLineage: Airflow's provider emits the events of every run and task; here is what it has to know of Yici.

Yici is an Airflow provider itself (entry point ``apache_airflow_provider``): through it an asset ``yici://…`` of the DAGs
becomes a dataset ``{"namespace": "yici://<hub>", "name": "holdings/business-licence"}``. Events go where the operator says
(``OPENLINEAGE_URL``, or any setting of Airflow's ``[openlineage]``), by default to ``logs/openlineage.jsonl`` of the home.
Names of sources and material types appear in them, never a row. Rows are followed by :mod:`hub.lineage`.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import urlsplit

from hub import home
from hub.home import Home

SCHEME = "yici"
FILE = "openlineage.jsonl"
GIVEN = (
    "OPENLINEAGE_URL",
    "OPENLINEAGE_CONFIG",
    "AIRFLOW__OPENLINEAGE__TRANSPORT",
    "AIRFLOW__OPENLINEAGE__CONFIG_PATH",
)


def provider() -> dict[str, Any]:
    """What Airflow's providers manager reads."""
    converter = f"{__name__}.dataset"
    return {
        "package-name": "yici",
        "name": "Yici",
        "description": "Assets of a Yici hub",
        "asset-uris": [{"schemes": [SCHEME], "handler": None, "to_openlineage_converter": converter}],
    }


def dataset(asset: Any, lineage_context: Any) -> Any:
    """The OpenLineage dataset of an asset ``yici://<kind>/<name>``."""
    from airflow.providers.common.compat.openlineage.facet import Dataset

    parts = urlsplit(asset.uri)
    return Dataset(namespace=namespace(), name=f"{parts.netloc}{parts.path}")


def namespace() -> str:
    """Datasets and jobs of one hub share it; several hubs may report to one place."""
    return f"{SCHEME}://{home.current().identity('hub') or 'hub'}"


def settings(home: Home) -> dict[str, str]:
    """Airflow's ``[openlineage]`` settings; a place that the operator named stays."""
    chosen = {"namespace": namespace(), "disable_source_code": "True"}
    if not any(name in GIVEN or name.startswith("OPENLINEAGE__TRANSPORT") for name in os.environ):
        place = {"type": "file", "log_file_path": str(home.path / "logs" / FILE), "append": True}
        chosen["transport"] = json.dumps(place)
    elif given := os.environ.get("AIRFLOW__OPENLINEAGE__TRANSPORT"):
        chosen["transport"] = given
    return chosen
