"""hub/cli/__init__.py: how the command ends."""

from __future__ import annotations

import json

import pytest

from hub import cli


def ends_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_an_interrupt_inside_the_column_engine_is_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends_with(RuntimeError("Query interrupted"), monkeypatch) == 130
    assert "interrupted" in capsys.readouterr().err


def test_another_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main()
    monkeypatch.setattr(cli, "app", lambda: (_ for _ in ()).throw(RuntimeError("else")))
    with pytest.raises(RuntimeError):
        cli.main()


@pytest.mark.parametrize(
    "arguments", [["run", "sh-amr-enterprises", "--input", "/nowhere"], ["run", "--nothing"], ["nothing"]]
)
def test_arguments_that_are_not_understood_are_told_as_json_too(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for json_, more in (("", []), ("arguments", ["--json"])):
        monkeypatch.setattr("sys.argv", ["yici", *arguments, *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        told = capsys.readouterr()
        assert "Usage: " in told.err
        error = json.loads(told.out)["error"] if told.out else {"code": ""}
        assert error["code"] == json_ and ("exit_code" not in error or error["exit_code"] == 2)
