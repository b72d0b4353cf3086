"""The sources through which the hubs read each other: the packaged one of Zhejiang's index, for every hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import yaml

from bench.exchange_faults.truth import REGIONS, index
from connectors import source as sources

PACKAGED = "zj-hub-index"
PAGE = 5  # positions a page: a read is several messages


def write_sources(folder: Path, hubs: Iterable[str]) -> None:
    """The folders, to be named by ``YICI_SOURCES``."""
    for hub in hubs:
        shutil.copytree(sources.PACKAGED / PACKAGED, folder / index(hub), ignore=shutil.ignore_patterns("sample"))
        path = folder / index(hub) / "source.yml"
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
        said |= {"name": index(hub), "connection": f"peer:{hub}", "region": REGIONS[hub]}
        said["options"] |= {"page_size": PAGE, "streams": 2, "request_seconds": 20}
        path.write_text(yaml.safe_dump(said, allow_unicode=True, sort_keys=False), encoding="utf-8")
