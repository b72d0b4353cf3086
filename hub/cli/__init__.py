"""The ``yici`` command: one module a topic, each adds its commands with ``register(app)``.

Modules here import nothing heavy at the top: ``yici --help`` answers at once.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import json
import os
import sys

import typer

from connectors.errors import UsageError, YiciError
from hub import interrupts

TOPICS = ("sources", "pipeline", "batches", "quarantine", "identifiers", "lookup", "evidence", "notices", "burden", "deposits", "subjects", "items", "clients",
          "peers", "exchange", "agreement", "services", "database", "synth", "bench", "pages", "lineage", "verify", "identity", "retention", "ledger", "shares",
          "reconcile", "corrections")  # fmt: skip

INTERRUPTED = 130  # typer's exit code on Ctrl-C

app = typer.Typer(
    name="yici",
    help="Yici 一次: pull records once, ask applicants never twice. 数据只取一次，材料不再重复提交。",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _topic in TOPICS:
    if importlib.util.find_spec(f"hub.cli.{_topic}"):
        importlib.import_module(f"hub.cli.{_topic}").register(app)


def main() -> None:
    """Entry point of the command; turns errors into a sentence, advice and the exit code of their class."""
    try:
        app()
    except YiciError as error:
        report(error)
        raise SystemExit(error.exit_code) from None
    except SystemExit as done:
        if done.code == INTERRUPTED:
            print(interrupts.said(), file=sys.stderr)
        elif said := getattr(done.__context__, "format_message", None):  # by typer, on standard error alone
            described(UsageError("arguments", reason=said()))
        raise
    except RuntimeError as error:
        if str(error) != "Query interrupted":  # Ctrl-C while DuckDB computes
            raise
        print(interrupts.said(), file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    finally:
        atexit.register(interrupts.leave)  # registered last, called first: what is left is waiting


def report(error: YiciError) -> None:
    """Print what went wrong and what to do next to standard error; with ``--json`` also as the one value of stdout."""
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print("✗", style="bold red", end=" ")
    console.print(error.message(), markup=False)
    if advice := error.advice():
        console.print(f"  → {advice}", markup=False)
    described(error)


def described(error: YiciError) -> None:
    """With ``--json``: the error as the one value of standard output."""
    if "--json" in sys.argv[1:]:
        named = {name: str(error.values[name]) for name in ("source", "batch") if name in error.values}
        told = {
            "code": error.code,
            "message": error.message(),
            "advice": error.advice(),
            "exit_code": error.exit_code,
        }
        print(json.dumps({"error": told | named}, ensure_ascii=False))
