"""YAML documents read strictly: one mapping, no key twice, checked by a pydantic model, reasons named."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from connectors.errors import FatalError

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of everything read from YAML: unknown keys are refused, values do not change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Text(Strict):
    """One text in Chinese and English."""

    zh: Annotated[str, StringConstraints(min_length=1)]
    en: Annotated[str, StringConstraints(min_length=1)]


# libyaml's reading is about eight times as fast; it is in the wheels of PyYAML, not in every build from source.
_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Loader(_Safe):
    """YAML that refuses a key given twice, where PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if repeated := sorted({str(key) for key in keys if keys.count(key) > 1}):
            again = next(key for place, (key, _) in enumerate(node.value) if keys[place] in keys[:place])
            raise yaml.constructor.ConstructorError(
                None, None, f"key given twice: {', '.join(repeated)}", again.start_mark
            )
        made: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return made


def reasons(error: ValidationError) -> str:
    """Every reason with its place, in one line."""
    return "; ".join(reason(item) for item in error.errors(include_url=False, include_context=False))


def reason(item: ErrorDetails) -> str:
    """One reason with its place."""
    place = ".".join(str(step) for step in item["loc"])
    said = "unknown key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
    return f"{place}: {said}" if place else said


def load(path: Path, model: type[Model], code: str, **more: Any) -> Model:
    """The document at ``path`` as ``model``, with the values of ``more`` added.

    FatalError ``code`` (sentence with ``file`` and ``reason``) when it cannot be read or does not fit.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506 - a SafeLoader
        if not isinstance(data, dict):
            raise FatalError(code, file=str(path), reason="the file must be a mapping of keys to values")
        return model.model_validate({**data, **more})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FatalError(code, file=str(path), reason=" ".join(str(error).split())) from error
    except ValidationError as error:
        raise FatalError(code, file=str(path), reason=reasons(error)) from error
