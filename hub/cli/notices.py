"""``yici notice``: the one-time notice of a stored answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    @app.command()
    def notice(
        answer: Annotated[str, typer.Argument(metavar="ANSWER", help="The `answer` field of a lookup.")],
        lang: Annotated[str | None, typer.Option(help="zh or en.")] = None,
        json: Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")] = False,
        out: Annotated[
            Path | None, typer.Option(metavar="FILE", help="Write the page there, or with .json the data.")
        ] = None,
    ) -> None:
        """The one-time notice: all that is missing, and what would satisfy it. 一次性告知书。

        It covers every item that was asked about together.

        Example: [bold]yici notice 01999f3a-… --lang zh --out notice.html[/]
        """
        from connectors import messages
        from hub import database, notices
        from hub.cli import output

        if lang not in (None, "zh", "en"):
            raise typer.BadParameter("zh or en", param_hint="--lang")
        if out is not None and out.suffix not in (".html", ".json"):
            raise typer.BadParameter(
                "a file that ends in .html or .json; for a PDF print the page from a browser 以 .html 或 .json 结尾的文件，PDF 请在浏览器中打印",
                param_hint="--out",
            )
        language: Any = lang or messages.language()
        made = notices.notice(database.engine(), answer, language)
        if out is not None:
            with output.whole(out) as half:
                half.write_bytes(notices.json(made) if out.suffix == ".json" else notices.html(made, language))
        if json:
            output.json(made)
        elif out is None:
            _print(made, language)


def _open(each: Mapping[str, Any], say: Any, language: Any) -> list[str]:
    """On which answers and parties it depends."""
    said = [say("needed-if") + each["needed_if"]] if each["needed_if"] else []
    names = ("、" if language == "zh" else ", ").join(one["name"] for one in each["roles_needed"])
    return [*said, say("roles-needed") + names] if names else said


def _print(made: dict[str, Any], language: Any) -> None:
    from connectors import messages
    from hub import notices
    from hub.cli import output

    def say(name: str) -> str:
        return messages.text(f"notice-{name}", language)

    names = " · ".join(item["item_name"] for item in made["items"])
    certain, depends = notices.unnamed(made["open"])
    parts = (("missing", made["missing"]), ("deferred", made["deferred"]), ("unnamed", certain), ("open", depends))
    rows = [
        (
            say(part),
            each["name"],
            " / ".join(" + ".join(use["text"] for use in option) for option in each["options"]),
            " ".join(
                filter(
                    None,
                    (*(each["questions"] or [each["reason"]]), *_open(each, say, language), each["next_step"]),
                )
            ),
        )
        for part, entries in parts
        for each in entries
    ]
    output.table(("", "", "", ""), rows, title=f"{say('title')} · {names}")
    submit = ", ".join(each["text"] for each in made["must_submit"])
    output.console().print(f"{say('must-submit')}: {submit}" if submit else say("nothing"), markup=False)
