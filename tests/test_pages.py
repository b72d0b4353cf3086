"""The pages of the model are what the model says, and say it whatever stands in it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from connectors.messages import Language
from connectors.source import PACKAGED, all_sources
from hub import problem_page
from mappings import bundles, item_pages, items, markdown, material_pages, model, pages
from mappings.items import Item
from mappings.model import Material
from tests.conftest import ROOT

DOCS = ROOT / "docs"
MADE = pages.pages()
SOURCES = all_sources(PACKAGED)
RENDER = MarkdownIt("commonmark").enable("table").enable("strikethrough")
LANGUAGES: tuple[Language, ...] = ("zh", "en")
NASTY = "a|b *c* _d_ `e` [f](http://g) <script>h</script> #i &lt; ~~j~~ \\ ![k](l)\n\n# m \\| n"


def test_the_pages_in_the_tree_are_current() -> None:
    assert pages.stale(DOCS, MADE) == [], "run `yici docs`"


def test_there_is_one_for_each_and_the_lists_name_them_all() -> None:
    kinds, parts, whole = model.all_materials(), items.all_items(), bundles.all_bundles()
    assert set(MADE) == {
        "materials/README.md",
        "items/README.md",
        *(f"materials/{kind.code}.md" for kind in kinds),
        *(f"items/{each.code}.md" for each in (*parts, *whole)),
    }
    for path in MADE:
        folder, _, file = path.partition("/")
        assert file == "README.md" or MADE[f"{folder}/README.md"].count(f"]({file})") >= 2, path


def test_every_link_leads_somewhere() -> None:
    seen = 0
    for path, text in MADE.items():
        anchors = {heading.strip().lower() for heading in re.findall(r"^## (.+)$", text, re.M)}
        for target in re.findall(r"\]\(([^)]+)\)", text):
            seen += 1
            if target.startswith("#"):
                assert target[1:] in anchors, (path, target)
            else:
                assert (Path("/") / Path(path).parent / target).resolve().relative_to("/").as_posix() in MADE, (
                    path,
                    target,
                )
    assert seen > 200


@pytest.mark.parametrize("material", model.all_materials(), ids=lambda each: each.code)
def test_a_material_page_says_all_of_it_in_both_languages(material: Material) -> None:
    zh, en = MADE[f"materials/{material.code}.md"].split("\n## English\n")
    assert f"\n# {material.name.zh} · {material.name.en}\n" in zh
    texts = [material.authoritative, material.sharing.basis]
    texts += [role.name for role in material.holders.values()]
    texts += [attribute.name for attribute in material.attributes.values()]
    texts += [material.sharing.conditions] if material.sharing.conditions else []
    for text in texts:
        assert markdown.plain(text.zh) in zh and markdown.plain(text.en) in en
    for part in (zh, en):
        assert material.codes.certificate_type in part
        assert all(f"| `{name}` |" in part for name in (*material.holders, *material.attributes))
        delivering = [source.name for source in SOURCES if source.entity == material.code]
        assert all(f"`{name}`" in part for name in delivering)
        assert bool(delivering) != ("No source is connected" in part or "尚未接入" in part)
        asking = [item.code for item in items.all_items() if material.code in item.materials()]
        assert re.findall(r"\.\./items/([a-z-]+)\.md", part) == asking
    assert ("never announced" in en) == (not material.indexed)


@pytest.mark.parametrize("item", items.all_items(), ids=lambda each: each.code)
def test_an_item_page_says_all_of_it_in_both_languages(item: Item) -> None:
    zh, en = MADE[f"items/{item.code}.md"].split("\n## English\n")
    assert f"\n# {item.name.zh} · {item.name.en}\n" in zh
    texts = [item.legal_basis, item.applicant.name, *(party.name for party in item.roles.values())]
    texts += [fact.question for fact in item.facts.values()]
    for requirement in item.requirements:
        texts += [requirement.name, *filter(None, [requirement.legal_basis])]
        texts += [requirement.deferral.basis] if requirement.deferral else []
    for text in texts:
        assert markdown.plain(text.zh) in zh and markdown.plain(text.en) in en
    for part in (zh, en):
        used = [use.material for _, use in item.uses()]
        assert re.findall(r"\.\./materials/([a-z-]+)\.md", part) == used
        assert all(f"`{name}`" in part for name in (*item.roles, *item.facts, item.code, item.basic_code))
        assert f"{item.in_force.from_}" in part
    without = sum(requirement.legal_basis is None for requirement in item.requirements)
    assert (zh.count("无法律依据"), en.count("no basis in law")) == (without, without)
    always = sum(requirement.when is None for requirement in item.requirements)
    assert (zh.count("始终需要"), en.count("Needed: always")) == (always, always)


def test_a_requirement_reads_as_the_guide_of_a_counter() -> None:
    page = MADE["items/demo-pension-transfer.md"]
    assert "须为浙江省（33）的证照" in page and "issued in province 33 (浙江省)" in page
    assert "容缺受理，45 天内补交" in page and "to be handed in within 45 days" in page
    assert "- 以下任一项即可满足：\n  1. 申请人的[居民身份证](../materials/resident-id-card.md)\n  2. " in page
    assert "或（“参保人的性别？”：女，且“参保人年满多少周岁？”：不少于 40）" in page
    move = MADE["items/demo-household-move.md"]
    assert "配偶（`spouse`）的[居民户口簿](../materials/household-register.md)" in move
    assert "告知承诺，办结前核验" in MADE["items/demo-company-establishment.md"]


def structure(page: str) -> list[str]:
    """The kinds of everything on a page but its text."""
    found = [child.type for token in RENDER.parse(page) for child in (token, *(token.children or ()))]
    return [kind for kind in found if kind not in ("text", "text_special")]


def dressed(data: object, words: str) -> object:
    """``data`` with ``words`` in place of every bilingual text."""
    if isinstance(data, dict):
        if set(data) == {"zh", "en"}:
            return {"zh": words, "en": words}
        return {key: dressed(value, words) for key, value in data.items()}
    return [dressed(each, words) for each in data] if isinstance(data, list | tuple) else data


def test_text_stays_text() -> None:
    """A page of a model full of markup has the structure of the page of the same model without, and shows every character."""
    kind, part = (
        model.load("marriage-certificate"),
        next(i for i in items.all_items() if i.code == "demo-household-move"),
    )

    def said(words: str, lang: Language) -> list[str]:
        """The pages of the two with ``words`` in place of every text."""
        material = Material.model_validate(dressed(kind.model_dump(by_alias=True), words))
        item = Item.model_validate(dressed(part.model_dump(by_alias=True, exclude_none=True), words))
        made = [
            material_pages.page(material, [], [item], lang),
            material_pages.index([material], [], lang),
            item_pages.page(item, [], lang),
            item_pages.index([item], [], lang),
        ]
        return ["\n\n".join(blocks) for blocks in made]

    for lang in LANGUAGES:
        for nasty, tame in zip(said(NASTY, lang), said("plain", lang), strict=True):
            assert structure(nasty) == structure(tame)
            found = ["".join(child.content for child in token.children or ()) for token in RENDER.parse(nasty)]
            assert any(" ".join(NASTY.split()) in text for text in found)


@pytest.mark.parametrize("text", ["a", "`", "``x", "a|b", "a\nb", "`a`"])
def test_code_stays_code_in_a_table(text: str) -> None:
    cells = [t for t in RENDER.parse(markdown.table(["h", "i"], [[markdown.code(text), "j"]])) if t.type == "inline"]
    assert len(cells) == 4
    assert [child.type for child in cells[2].children or ()] == ["code_inline"]
    assert (cells[2].children or ())[0].content == " ".join(text.split())


def test_stale_missing_and_orphaned_pages_are_named_and_made_good(tmp_path: Path) -> None:
    assert pages.write(tmp_path, MADE) == sorted(MADE)
    assert pages.stale(tmp_path, MADE) == [] == pages.write(tmp_path, MADE)
    (tmp_path / "items/newborn.md").unlink()
    changed = tmp_path / "materials/authorisation.md"
    changed.write_text(changed.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    orphan = tmp_path / "items/gone.md"
    orphan.write_text(f"{pages.MARK}\n", encoding="utf-8")
    foreign = tmp_path / "items/ours.md"
    foreign.write_bytes(b"\xff written by hand")
    wrong = ["items/gone.md", "items/newborn.md", "materials/authorisation.md"]
    assert pages.stale(tmp_path, MADE) == wrong == pages.write(tmp_path, MADE)
    assert pages.stale(tmp_path, MADE) == []
    assert foreign.exists() and not orphan.exists()
    assert not list(tmp_path.rglob(".*"))


def yici(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hub", "docs", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)


def test_the_command(tmp_path: Path) -> None:
    wrong = yici("--check", "--to", str(tmp_path), "--json")
    assert wrong.returncode == 1
    assert json.loads(wrong.stdout)["error"]["code"] == "docs-stale"
    assert "items/newborn.md" in wrong.stderr and "yici docs" in wrong.stderr
    written = json.loads(yici("--to", str(tmp_path), "--json").stdout)
    made = {*MADE, problem_page.PATH}
    assert written == {"folder": str(tmp_path), "changed": sorted(made), "pages": len(made)}
    good = yici("--check", "--to", str(tmp_path))
    assert (good.returncode, good.stdout) == (0, "")
