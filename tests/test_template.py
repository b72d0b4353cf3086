"""connectors/template.py: the texts of a new folder are complete, readable and say what is open."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import yaml

from connectors import source, template
from connectors.source import AnyOptions, Source
from connectors.template import Choice

ENTITIES = [("residence-permit", "居住证", "Residence permit")]
MODELS = {model.model_fields["connector"].default: model for model in get_args(AnyOptions)}


def written(tmp_path: Path, choice: Choice) -> tuple[Path, str]:
    folder = tmp_path / choice.name
    folder.mkdir()
    text = template.description(choice, ENTITIES)
    (folder / "source.yml").write_text(text, encoding="utf-8")
    return folder, text


def test_every_connector_has_a_template() -> None:
    assert set(template.OPTIONS) == set(MODELS)


@pytest.mark.parametrize("connector", template.OPTIONS)
def test_the_text_is_a_valid_source_with_open_points(tmp_path: Path, connector: str) -> None:
    folder, text = written(tmp_path, Choice("sh-tax-receipts", connector))
    read = source.read(folder)
    hub = connector == "hub"
    assert (read.connector, read.connection, read.region) == (connector, "peer:sh" if hub else "sh-tax", "310000")
    assert ("YICI_CONN_SH_TAX" in text) != hub and "residence-permit  居住证" in text
    found = {line for _, _, line in template.open_points(folder)}
    assert any("legal_basis" in text[: text.index(line)] for line in found), "without a basis nothing is loaded"
    assert len(found) >= 4


@pytest.mark.parametrize("connector", template.OPTIONS)
def test_every_key_is_there_with_a_comment(tmp_path: Path, connector: str) -> None:
    """Also those that keep their default: they stand commented out, with it."""
    _, text = written(tmp_path, Choice("sh-tax-receipts", connector))
    for name, field in Source.model_fields.items():
        if name not in ("folder", "options"):
            assert re.search(rf"^{field.alias or name}:.*#", text, re.M), name
    for name, field in MODELS[connector].model_fields.items():
        if get_origin(field.annotation) is not Literal or len(get_args(field.annotation)) > 1:  # else nothing to choose
            assert re.search(rf"^  (# )?{field.alias or name}: .", text, re.M), name


@pytest.mark.parametrize("connector", template.OPTIONS)
def test_defaults_in_comments_are_the_defaults(tmp_path: Path, connector: str) -> None:
    folder, text = written(tmp_path, Choice("sh-tax-receipts", connector))
    shown = re.sub(r"^  # (?=[a-z_]+: )", "  ", text, flags=re.M)
    plain = source.read(folder).options
    (folder / "source.yml").write_text(shown, encoding="utf-8")
    commented = source.read(folder).options.model_dump()
    different = {name for name, value in plain.model_dump().items() if value != commented[name]}
    assert different <= {"db_schema"}, "the schema's default is the server's search path"


def test_a_name_without_a_known_prefix_leaves_the_region_open(tmp_path: Path) -> None:
    folder, _ = written(tmp_path, Choice("gd-tax-receipts", "files"))
    assert any("region" in line for _, _, line in template.open_points(folder))
    folder, _ = written(tmp_path, Choice("gd-tax-others", "files", region="440000"))
    assert not any("region" in line for _, _, line in template.open_points(folder))


def test_sources_do_not_all_run_in_the_same_minute() -> None:
    texts = [template.description(Choice(f"sh-tax-{kind}", "files"), ENTITIES) for kind in ("a", "b", "c", "d")]
    assert len({yaml.safe_load(text)["schedule"] for text in texts}) > 1


def test_the_index_mapping_fits_what_the_reader_gives() -> None:
    from connectors import indexpages
    from mappings import mapping, model

    text = template.index_mapping()
    columns = [line.split(",")[1] for line in text.splitlines()[1:]]
    assert set(columns) == set(indexpages.COLUMNS)
    read = mapping.read(template.FOLDER / "hub.csv", model.load(template.INDEX), columns)
    assert set(read.columns()) == set(columns)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("row_key", ["a b", "no"], "row_key: [a b, 'no']  # key"),
        ("as_of", {"column": "gxsj"}, "as_of: {column: gxsj}  # {column: NAME}"),
        ("options.columns", ["面积(㎡)", "a]b"], "  columns: [面积(㎡), 'a]b']  # all"),
        ("options.format", "xlsx", "  format: xlsx"),
        ("options.header_rows", 2, "  header_rows: 2"),
        ("entity", "residence-permit", "entity: residence-permit"),
    ],
)
def test_a_value_is_replaced_and_its_comment_kept(key: str, value: object, expected: str) -> None:
    text = (
        "row_key: [TODO]  # TODO: key\nas_of: {column: TODO}  # {column: NAME}\nentity: todo\n"
        "options:\n  columns: []  # TODO: all\n  format: csv\n"
    )
    once = template.replaced(text, key, template.flow(value))
    assert expected in once.splitlines()
    twice = template.replaced(once, key, template.flow(value))
    assert twice == once and len(once.splitlines()) - len(text.splitlines()) in (0, 1)
    assert yaml.safe_load(once)


def test_what_a_sample_does_not_tell_stays_open() -> None:
    text = "row_key: [TODO]  # TODO: key\nas_of: {column: TODO}\noptions:\n  columns: []  # TODO: all\n"
    for key, value in (("row_key", "[a]"), ("as_of", "{date: 2000-01-01}"), ("options.watermark", "a")):
        assert template.is_open(text, key)
        text = template.replaced(text, key, value, settled=False)
        assert template.is_open(text, key) and yaml.safe_load(text)
    for key, value in (("row_key", "[b]"), ("as_of", "{column: b}"), ("options.watermark", "b")):
        text = template.replaced(text, key, value)
        assert not template.is_open(text, key)
    assert "row_key: [b]  # key" in text and template.is_open(text, "options.columns")


def test_comments_are_no_open_points(tmp_path: Path) -> None:
    (tmp_path / "source.yml").write_text("# TODO in a comment\na: 1\nb: TODO x\n", encoding="utf-8")
    (tmp_path / "mapping.csv").write_text("field,from,transform,note\nname,TODO,text,\n", encoding="utf-8")
    assert [(path.name, number) for path, number, _ in template.open_points(tmp_path)] == [
        ("mapping.csv", 2),
        ("source.yml", 3),
    ]
