"""User-facing sentences, in Chinese and English, kept as data.

Every package keeps its sentences in ``<package>/messages/*.yml``::

    source-unreachable:
      en: "{source}: no answer from {host} within {seconds} s."
      zh: "{source}：{host} 在 {seconds} 秒内没有应答。"
      advice:
        en: "Check the address with `yici check {source}`, then run again."
        zh: "请用 `yici check {source}` 检查地址，然后重新运行。"

Codes are unique over all packages. A sentence never contains a personal identifier: callers pass file names, row
numbers, counts and codes.
"""

from __future__ import annotations

import functools
import os
from importlib.resources import files
from typing import Any, Literal

import yaml

PACKAGES = ("connectors", "mappings", "quality", "hub", "demo")

Language = Literal["zh", "en"]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the former where PyYAML was built with libyaml


def language() -> Language:
    """The user's language: ``YICI_LANG``, else the locale's, else English."""
    for name in ("YICI_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


@functools.cache
def sentences() -> dict[str, dict[str, Any]]:
    """Every known code with its sentences. Raises ValueError when two packages use one code."""
    known: dict[str, dict[str, Any]] = {}
    for package in PACKAGES:
        folder = files(package) / "messages"
        if not folder.is_dir():
            continue
        for entry in sorted(folder.iterdir(), key=lambda path: path.name):
            if not entry.name.endswith(".yml"):
                continue
            for code, texts in (yaml.load(entry.read_text(encoding="utf-8"), Loader=_Loader) or {}).items():  # noqa: S506
                if code in known:
                    raise ValueError(f"message code {code} is defined twice")
                known[code] = texts
    return known


def text(code: str, /, lang: Language | None = None, **values: object) -> str:
    """The sentence for ``code``, filled with ``values``; an unknown code is an error, so that no text goes missing."""
    return str(sentences()[code][lang or language()]).format(**values)


def advice(code: str, /, lang: Language | None = None, **values: object) -> str:
    """What the user can do next, or an empty string."""
    texts = sentences()[code].get("advice") or {}
    return str(texts.get(lang or language(), "")).format(**values)
