"""A pipeline stage as an Airflow task: references in, references out, errors as sentences.

Repeating is for :class:`~connectors.errors.RetriableError` alone. Whatever else goes wrong fails the task at once, with the
sentence and the advice a person needs; a batch that a gate stopped says ``halted`` and leaves the XCom ``halted`` behind.
Nothing of the exceptions underneath is shown: a database's message may quote a row.
"""

from __future__ import annotations

import datetime as dt
import importlib
import logging
import traceback
from typing import TYPE_CHECKING, Any

from connectors.errors import BatchHalted, RetriableError, YiciError

if TYPE_CHECKING:
    from airflow.sdk import CronTriggerTimetable

log = logging.getLogger(__name__)

HALTED = "halted"


def retries() -> dict[str, Any]:
    """``default_args`` of a DAG: only errors that may go away are repeated, with growing delays."""
    from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

    rules = [RetryRule("connectors.errors.RetriableError", RetryAction.RETRY)]
    return {
        "retries": 5,
        "retry_delay": dt.timedelta(seconds=30),
        "retry_exponential_backoff": 2,
        "max_retry_delay": dt.timedelta(minutes=30),
        "retry_policy": ExceptionRetryPolicy(rules, default=RetryAction.FAIL),
    }


def timetable(cron: str) -> CronTriggerTimetable:
    """Unpausing waits for the next time of the schedule: no start date and no delay, where ``run_immediately=False`` would
    still make up for a run missed within a tenth of the interval."""
    from airflow.sdk import CronTriggerTimetable

    return CronTriggerTimetable(cron, timezone="UTC", run_immediately=dt.timedelta(0))


def call(module: str, stage: str, context: Any, /, **references: Any) -> Any:
    """Run ``module.stage(**references)`` in the task that ``context`` belongs to; imported only now, since the scheduler
    and the parsing of DAG files need none of it."""
    from airflow.sdk.exceptions import AirflowFailException

    try:
        return getattr(importlib.import_module(module), stage)(**references)
    except BatchHalted as error:
        halted = {"code": error.code, "message": error.message(), "advice": error.advice()}
        context["ti"].xcom_push(HALTED, {**halted, "batch": str(error.values.get("batch", ""))})
        raise AirflowFailException(f"{HALTED}: {error}") from None
    except RetriableError as error:
        log.warning("%s", error)
        raise error.with_traceback(None) from None
    except YiciError as error:
        raise AirflowFailException(str(error)) from None
    except Exception as error:
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error("%s in\n%s", type(error).__name__, where)
        raise AirflowFailException(f"{type(error).__name__}; the place is in the log above") from None
