"""``yici items``: the catalogue, its files and their flaws, comparison, changes and guides."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connectors.marks import Defect
    from mappings.items import Item

Json = Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")]
On = Annotated[
    dt.datetime | None, typer.Option("--on", formats=["%Y-%m-%d"], help="The day, yyyy-mm-dd; today without it.")
]
Lang = Annotated[str | None, typer.Option(help="zh or en.")]


def register(app: typer.Typer) -> None:
    commands = typer.Typer(help="The catalogue of service items. 事项目录。", no_args_is_help=True)
    app.add_typer(commands, name="items")

    @commands.command(name="list")
    def list_(on: On = None, lang: Lang = None, json: Json = False) -> None:
        """List the items with published requirements, as they are on a day. 列出已公布申请材料的事项。

        Example: [bold]yici items list --on 2027-07-01[/]
        """
        from hub import catalogue, database
        from hub.cli import output

        with database.engine().connect() as connection:
            found = catalogue.summaries(connection, catalogue.published(), _day(on), _language(lang))
        if json:
            output.json(found)
            return
        columns = ("item", "item_name", "version", "state", "successor", "region")
        output.table(columns, [[each[column] for column in columns] for each in found])

    @commands.command()
    def show(code: str, on: On = None, lang: Lang = None, json: Json = False) -> None:
        """Show one item in the version of a day. 查看事项。

        Example: [bold]yici items show demo-food-permit[/]
        """
        from hub import catalogue
        from hub.cli import output

        item = _find(code, on)
        described = catalogue.described(item, _language(lang))
        if json:
            output.json(described)
            return
        rows = [(name, value) for name, value in described.items() if not isinstance(value, dict | list)]
        output.table(("", ""), rows)
        output.table(
            ("requirement", "name", "condition", "options", "legal basis"),
            [
                (
                    each["requirement"],
                    each["name"],
                    each["condition"],
                    " | ".join(" + ".join(use["material"] for use in option) for option in each["options"]),
                    each["legal_basis"],
                )
                for each in described["requirements"]
            ],
        )

    @commands.command()
    def check(
        folder: Annotated[
            Path | None, typer.Argument(help="A folder of item files; the catalogue's own without it.")
        ] = None,
        json: Json = False,
    ) -> None:
        """Check the files of the catalogue: everything wrong with file, line and reason. 检查事项文件。

        The catalogue's own is also compared with what was published, where this home has a store that can be reached.

        Example: [bold]yici items check[/]

        Example: [bold]yici items check mappings/model/items[/]
        """
        from connectors.errors import FatalError
        from hub.cli import output
        from mappings import bundles, items

        place = folder or items.FOLDER
        if not place.is_dir():
            raise typer.BadParameter(f"there is no folder {place}")
        versions, defects = items.examine(place)
        if folder is None:
            defects = [*defects, *bundles.examine(bundles.FOLDER, {code: each[-1] for code, each in versions.items()})]
        published = _against_published(versions, defects) if folder is None else None
        defects = [*defects, *(published or ())]
        if json:
            compared = published is not None
            output.json({"items": len(versions), "compared": compared, "defects": [vars(each) for each in defects]})
            if defects:
                raise typer.Exit(1)
        elif defects:
            raise FatalError("items-invalid", count=len(defects), defects="\n".join(str(each) for each in defects))
        else:
            output.messages().print(f"{len(versions)} items, nothing wrong 事项 {len(versions)} 个，无误", markup=False)
        if published is None and not json:
            said = "not compared with what was published 未与已发布的内容比对"
            output.messages().print(said, markup=False, soft_wrap=True)

    @commands.command()
    def compare(
        basic_code: Annotated[str | None, typer.Argument(metavar="BASIC_CODE")] = None,
        all_: Annotated[bool, typer.Option("--all", help="Every basic code.")] = False,
        on: On = None,
        json: Json = False,
    ) -> None:
        """Where regions or levels disagree on what goes by one basic code, and what cites no law. 规范比对。

        Compared are the authored items and the implementation lists that sources delivered.

        Example: [bold]yici items compare 0000DEMO0010[/]

        Example: [bold]yici items compare --all --json[/]
        """
        from connectors.errors import UsageError
        from hub import comparison, database
        from hub.cli import output

        if (basic_code is None) != all_:
            raise UsageError("compare-what")
        with database.engine().connect() as connection:
            found = comparison.compare(connection, _day(on), basic_code)
        if json:
            output.json(found)
        else:
            _print_comparison(found)

    @commands.command()
    def changes(
        after: Annotated[int, typer.Option(min=0, help="Position after which to read.")] = 0,
        limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
        json: Json = False,
    ) -> None:
        """Read the feed of published changes. 查看动态调整记录。

        Example: [bold]yici items changes --after 20[/]
        """
        from hub import catalogue_changes, database
        from hub.cli import output

        with database.engine().connect() as connection:
            page = catalogue_changes.page(connection, after, limit)
        if json:
            output.json(page)
        else:
            _print_changes(page["changes"])

    @commands.command()
    def publish(note: Annotated[str, typer.Option(help="Why.")] = "", json: Json = False) -> None:
        """Publish what changed in the files, each change once. 发布目录变更（动态调整）。

        Again it publishes nothing. A published version that says something else now is refused: a change is a new version, and takes
        effect on the day of its publication or later.

        Example: [bold]yici items publish --note "council decision 12"[/]
        """
        from hub import home, publication, stack
        from hub.cli import output

        new = publication.publish(output.actor(), note)
        if api := stack.outdated(home.current()):
            said = f"! {api.address} answers by the catalogue it has loaded: `yici up` restarts it 该接口仍按已加载的目录作答，请运行 `yici up` 重启"
            output.messages().print(said, markup=False, soft_wrap=True)
        if json:
            output.json(new)
        elif new:
            _print_changes(new)
        else:
            output.messages().print("nothing to publish 没有需要发布的变更", markup=False)

    @commands.command()
    def guide(
        code: str,
        on: On = None,
        lang: Lang = None,
        html: Annotated[bool, typer.Option("--html", help="A page that prints well.")] = False,
        json: Annotated[bool, typer.Option("--json", help="As JSON; so without --html too.")] = False,
        out: Annotated[Path | None, typer.Option(help="Write it there instead of standard output.")] = None,
    ) -> None:
        """Write the guide of an item, the same bytes as the API gives. 生成办事指南。

        Example: [bold]yici items guide demo-food-permit --lang zh --html --out guide.html[/]
        """
        import sys

        from hub import guides

        if html and json:
            raise typer.BadParameter("--html or --json, not both")
        item, language = _find(code, on), _language(lang)
        written = guides.html(item, language) if html else guides.json(item, language)
        if out is None:
            sys.stdout.buffer.write(written)
            return
        from hub.cli import output

        with output.whole(out) as half:
            half.write_bytes(written)


def _against_published(versions: Mapping[str, tuple[Item, ...]], defects: list[Defect]) -> list[Defect] | None:
    """What would not stay as it was published; None where there is no store to ask, and none is made for it."""
    import sqlalchemy as sa

    from connectors.errors import FatalError
    from hub import catalogue_standing, database, embedded, home

    here = home.current()
    if here.database_url is None and not embedded.data_folder(here).is_dir():
        return None
    try:
        with database.engine().connect() as connection:
            feed = catalogue_standing.read(connection)
    except (FatalError, sa.exc.DBAPIError):
        return None
    unread = {Path(each.file).stem.partition("@")[0] for each in defects}
    return catalogue_standing.refused(feed, versions, unread=unread)


def _find(code: str, on: dt.datetime | None) -> Item:
    from hub import catalogue, database

    with database.engine().connect() as connection:
        return catalogue.find(connection, code, _day(on))


def _day(on: dt.datetime | None) -> dt.date:
    from hub import catalogue

    return on.date() if on else catalogue.today()


def _language(lang: str | None) -> Any:
    from connectors import messages

    if lang not in (None, "zh", "en"):
        raise typer.BadParameter("zh or en")
    return lang or messages.language()


def _print_changes(changes: list[dict[str, Any]]) -> None:
    from hub.cli import output

    columns = ("position", "item", "version", "kind", "effective_on", "successor")
    output.table(columns, [[each[column] for column in columns] for each in changes])


def _print_comparison(found: dict[str, Any]) -> None:
    from hub.cli import output

    rows = [
        (item["basic_code"], each["field"], value["value"], " ".join(value["codes"]))
        for item in found["items"]
        for each in item["differences"]
        for value in each["values"]
    ]
    output.table(("basic code", "field", "says", "codes"), rows, title=f"{len(rows)} differing statements 不一致")
    output.table(
        ("name", "basic codes"),
        [(each["name"], " ".join(each["basic_codes"])) for each in found["same_name"]],
        title="One name, several basic codes 同名不同码",
    )
    output.table(
        ("item", "requirement", "name"),
        [(each["item"], each["requirement"], each["name"]) for each in found["without_basis"]],
        title="No basis in law 无法律依据",
    )
