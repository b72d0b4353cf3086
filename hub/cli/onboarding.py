"""``yici sources new | infer | expect | test``: from nothing to a source that is ready to be scheduled."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hub.onboarding import Inferred

NEW_HELP = """Begin a source: write its commented folder, with a TODO wherever a person has to decide. 新建数据源文件夹。

It goes into --root, else the first folder of YICI_SOURCES, else connectors/sources of a checkout, else ./sources. Nothing
that exists is touched.

Examples:

  yici sources new sh-tax-receipts --connector files --entity business-licence

  yici sources new zj-hub-index --connector hub --connection peer:zj --region 330000
"""

INFER_HELP = """Propose options, mapping, code lists and checks from a sample, and cut a masked sample. 根据样例建议映射与检查。

The sample is a delivery as the source makes it: a file (csv, jsonl, xlsx, parquet), one page of JSON (rest), CSV (database).
Identifiers and names in the copy become invented ones. What you have edited is kept and shown, unless --force.

Examples:

  yici sources infer sh-tax-receipts --sample delivery.csv

  yici sources infer sh-tax-receipts --sample delivery.csv --entity business-licence --rows 20 --json
"""

EXPECT_HELP = """Write what the sample becomes into expected.csv and expected_rejects.csv. 生成样例的预期结果。

Read both before you keep them: from then on they are the contract.

Example:

  yici sources expect sh-tax-receipts
"""

TEST_HELP = """Test the contract of source folders: nothing left open, every column accounted for, sample as expected. 测试数据源契约。

Without a name, all of them. Exit code 0 when every check passes (advice aside), 1 when one fails.

Examples:

  yici sources test sh-tax-receipts

  yici sources test --root ./sources --json
"""

Name = Annotated[str, typer.Argument(help="Name of the source, which is its folder's. 数据源名称。")]
Root = Annotated[Path | None, typer.Option(help="The folder of source folders to look in. 数据源目录。", metavar="DIR")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value. 输出 JSON。")]


def register(group: typer.Typer) -> None:
    """Adds the subcommands to the group ``yici sources``."""
    group.command("new", help=NEW_HELP)(new)
    group.command("infer", help=INFER_HELP)(infer)
    group.command("expect", help=EXPECT_HELP)(expect)
    group.command("test", help=TEST_HELP)(test)


def new(
    name: Annotated[str, typer.Argument(help="<region>-<department>-<dataset>, such as sh-tax-receipts.")],
    connector: Annotated[str, typer.Option(help="rest, database, files, sftp, s3 or hub. 连接方式。")],
    entity: Annotated[str | None, typer.Option(help="What a row becomes: a material type. 材料类型。")] = None,
    region: Annotated[str | None, typer.Option(help="Division code of six digits. 行政区划代码。")] = None,
    connection: Annotated[
        str | None,
        typer.Option(help="Name of the connection, peer:NAME of a partner hub; by default <region>-<department>."),
    ] = None,
    format: Annotated[str, typer.Option(help="csv, jsonl, xlsx or parquet (files, sftp, s3). 文件格式。")] = "csv",
    root: Root = None,
    as_json: Json = False,
) -> None:
    from connectors.template import PATTERNS, Choice, open_points
    from hub import onboarding
    from hub.cli import output

    if format not in PATTERNS:
        raise typer.BadParameter(f"one of {', '.join(PATTERNS)}", param_hint="--format")
    place = onboarding.root(root)
    folder = onboarding.new(Choice(name, connector, entity, region, connection, format), place)
    points = [f"{path.name}:{number}" for path, number, _ in open_points(folder)]
    following = _after_new(name, connector, place, root)
    if as_json:
        output.json({"name": name, "folder": str(folder), "todo": points, "next": following})
        return
    output.console().print(f"[green]✓[/] {folder}", soft_wrap=True)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        output.console().print(f"  {path.relative_to(folder)}", soft_wrap=True)
    _next(following)


def _after_new(name: str, connector: str, place: Path, root: Path | None) -> list[str]:
    from connectors.source import DESCRIPTION
    from hub import onboarding

    found = [] if onboarding.seen(place) else [f"export YICI_SOURCES={shlex.quote(str(place))}"]
    if connector != "hub":
        found.append(f"yici sources infer {name} --sample FILE")
    return [
        *found,
        f"$EDITOR {shlex.quote(str(place / name / DESCRIPTION))}   # every TODO",
        f"yici sources test {name}",
    ]


def infer(
    name: Name,
    sample: Annotated[Path, typer.Option(help="A delivery as the source makes it. 样例文件。", metavar="FILE")],
    entity: Annotated[str | None, typer.Option(help="What a row becomes, where source.yml leaves it open. 材料类型。")] = None,
    rows: Annotated[int, typer.Option(min=1, max=1000, help="Rows of the copy in sample/. 复制的行数。")] = 50,
    mask: Annotated[bool, typer.Option("--mask/--as-is", help="Replace identifiers and names by invented ones, or copy rows as they are. 脱敏或原样复制。")] = True,
    keep_sample: Annotated[bool, typer.Option("--copy/--no-sample", help="Copy rows into sample/ at all. 是否复制样例。")] = True,
    force: Annotated[bool, typer.Option("--force", help="Also replace what you have edited. 覆盖已有修改。")] = False,
    root: Root = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    from hub import contracts, onboarding
    from hub.cli import output

    if not sample.is_file():
        raise typer.BadParameter(f"no such file: {sample}", param_hint="--sample")
    folder = contracts.folder_of(name, root)
    with output.messages().status(f"{name}: {sample.name}"):
        done = onboarding.infer(
            folder, sample, entity=entity, rows=rows, mask=mask, keep_sample=keep_sample, force=force
        )
    if as_json:
        output.json(_described(done, mask))
        return
    _show(done, mask)
    _next(
        [
            f"$EDITOR {shlex.quote(str(folder))}   # every TODO",
            f"yici sources expect {name}",
            f"yici sources test {name}",
        ]
    )


def _described(done: Inferred, mask: bool) -> dict[str, Any]:
    return {
        "name": done.source,
        "folder": str(done.folder),
        "rows": done.rows,
        "columns": done.columns,
        "files": {str(change.path.relative_to(done.folder)): change.state for change in done.changes},
        "unfilled": list(done.unfilled),
        "sample": done.sample and {"file": done.sample.name, "rows": done.sample_rows, "masked": list(done.masked)},
        "mask": mask,
        "todo": list(done.open),
    }


def _show(done: Inferred, mask: bool) -> None:
    from connectors.messages import text
    from hub.cli import output

    console = output.console()
    for change in done.changes:
        name = change.path.relative_to(done.folder)
        mark = {"written": "[green]✓[/]", "unchanged": "·", "kept": "[yellow]![/]"}[change.state]
        console.print(f"{mark} {name}: {text(f'onboarding-{change.state}')}", soft_wrap=True)
        for line in change.diff[2:]:
            if not line.startswith("@@"):
                colour = "green" if line.startswith("+") else "red"
                console.print(f"    {line}", style=colour, markup=False, soft_wrap=True)
    if done.unfilled:
        console.print("· " + text("onboarding-unfilled", fields=", ".join(done.unfilled)), soft_wrap=True)
    if done.sample:
        code = "onboarding-masked" if mask else "onboarding-unmasked"
        values = {"file": done.sample.name, "rows": done.sample_rows, "columns": ", ".join(done.masked) or "-"}
        console.print(f"[yellow]![/] {text(code, None, **values)}", soft_wrap=True)
    if done.open:
        console.print(
            f"[yellow]![/] {text('contract-open', count=len(done.open), places=', '.join(done.open))}", soft_wrap=True
        )


def expect(name: Name, root: Root = None, as_json: Json = False) -> None:
    from connectors import source
    from hub import contracts
    from hub.cli import output

    described = source.read(contracts.folder_of(name, root))
    with output.messages().status(f"{name}: sample"):
        accepted, kept = contracts.expect(described)
    if as_json:
        output.json({"name": name, "accepted": accepted, "kept_back": kept})
        return
    folder = described.sample_path
    for file, count in ((contracts.EXPECTED, accepted), (contracts.KEPT, kept)):
        output.console().print(f"[green]✓[/] {folder / file}: {count}", soft_wrap=True)
    _next([f"yici sources test {name}", f"yici check {name}", f"yici run {name}"])


def test(
    names: Annotated[list[str] | None, typer.Argument(help="Names of sources; none: all. 数据源名称。")] = None,
    root: Root = None,
    as_json: Json = False,
) -> None:
    from hub import contracts
    from hub.cli import output

    results: dict[str, list[contracts.Finding]] = {}
    with output.messages().status("") as status:
        for folder in contracts.folders(names or [], root):
            status.update(folder.name)
            results[folder.name] = contracts.check(folder)
            if not as_json:
                _show_findings(folder.name, results[folder.name])
    ok = all(finding.ok or not finding.grave for findings in results.values() for finding in findings)
    if as_json:
        output.json({"ok": ok, "sources": [_tested(name, findings) for name, findings in results.items()]})
    raise typer.Exit(0 if ok else 1)


def _tested(name: str, findings: list[Any]) -> dict[str, Any]:
    shown = [
        {"check": one.check, "ok": one.ok, "grave": one.grave, "detail": one.detail} for one in findings
    ]  # fmt: skip
    return {"name": name, "ok": all(one.ok or not one.grave for one in findings), "checks": shown}


def _show_findings(name: str, findings: list[Any]) -> None:
    from hub.cli import output

    output.console().print(f"[bold]{name}[/]")
    for one in findings:
        mark = "[green]✓[/]" if one.ok else "[red]✗[/]" if one.grave else "[yellow]![/]"
        output.console().print(f"  {mark} {one.check:<13}", end="")
        output.console().print(one.detail, markup=False, soft_wrap=True)


def _next(commands: list[str]) -> None:
    from connectors.messages import text
    from hub.cli import output

    output.messages().print(text("onboarding-next"))
    for command in commands:
        output.messages().print(f"  {command}", markup=False, soft_wrap=True)
