"""Alarms told to a webhook: one POST of JSON per run, in bounded time, whatever the other end does.

A failure is told and never raised: an alarm that could not be posted is still an alarm of the run. The address is a
secret and appears in no message; the libraries' own logging of it is turned off.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import httpx
import msgspec
import tenacity

from store.clock import said
from store.limits import WEBHOOK_ALARMS_MAX, WEBHOOK_WAIT_SECONDS
from store.monitor.drift_report import DriftReport

_TRIED_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of servers that may do better later; any other refusal is final."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where to post, and how long to try.

    Units: `timeout_seconds` bounds all attempts together, waits between them included.
    """

    address: str
    timeout_seconds: float
    attempts: int


class _NotTaken(Exception):
    """The other end did not take it; the text says why, without the address."""


class _NotNow(_NotTaken):
    """It may take it later."""


def message_of(reports: Sequence[DriftReport]) -> dict[str, Any]:
    """Returns what is posted: `text` for chat services, and the alarms for programs."""
    alarms = [(report, each) for report in reports for each in report.alarms]
    told = [f"{report.subject.name}: {each.feature}: {each.statement}" for report, each in alarms[:WEBHOOK_ALARMS_MAX]]
    more = len(alarms) - len(told)
    head = f"{len(alarms)} {'feature has' if len(alarms) == 1 else 'features have'} drifted"
    return {
        "text": "\n".join([head, *told, *([f"and {more} more"] if more else [])]),
        "alarms_total": len(alarms),
        "alarms": [
            {
                "subject_kind": str(report.subject.kind),
                "subject": report.subject.name,
                "from": said(report.span.start_us),
                "to": said(report.span.end_us),
                "reference_kind": str(report.reference.kind),
                "reference": report.reference.name,
                "feature": each.feature,
                "statement": each.statement,
                "measures": {
                    measure.name: measure.value for measure in each.measures if measure.verdict == each.verdict
                },
            }
            for report, each in alarms[:WEBHOOK_ALARMS_MAX]
        ],
    }


def tell(webhook: Webhook, message: Mapping[str, Any]) -> str:
    """Posts a message; returns '' if it was taken, else why not, in a sentence."""
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        address = httpx.URL(webhook.address)
    except httpx.InvalidURL:
        address = None
    if address is None or address.scheme not in {"http", "https"} or not address.host:
        return "the webhook's address is no http or https URL; correct it in monitoring.yaml or its variable"
    outcome: SimpleQueue[str] = SimpleQueue()
    # A thread that nobody waits for: neither names that are slowly resolved nor a head that comes byte by byte can hold
    # the run for longer than it allows.
    args = (webhook, address, msgspec.json.encode(message), outcome)
    threading.Thread(target=_tell, args=args, daemon=True).start()
    try:
        return outcome.get(timeout=webhook.timeout_seconds)
    except Empty:
        return f"the webhook did not take the alarms within {webhook.timeout_seconds:g} s; look whether it is well"


def _tell(webhook: Webhook, address: httpx.URL, content: bytes, outcome: "SimpleQueue[str]") -> None:
    attempts = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(webhook.attempts) | tenacity.stop_after_delay(webhook.timeout_seconds),
        wait=tenacity.wait_exponential_jitter(WEBHOOK_WAIT_SECONDS, jitter=WEBHOOK_WAIT_SECONDS / 2),
        retry=tenacity.retry_if_exception_type(_NotNow),
        reraise=True,
    )
    try:
        # One attempt may take all the time there is; the deadline is over all of them.
        with httpx.Client(follow_redirects=False, timeout=webhook.timeout_seconds) as client:
            attempts(_post, client, address, content)
    except _NotTaken as refusal:
        outcome.put(f"the webhook did not take the alarms: {refusal}")
    except Exception as error:  # noqa: BLE001 - the edge of a thread; a traceback could quote the address
        outcome.put(f"the webhook did not take the alarms: {type(error).__name__} before anything was posted")
    else:
        outcome.put("")


def _post(client: httpx.Client, address: httpx.URL, content: bytes) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "larder"}
    try:
        # The status comes with the head of the answer; its body, however long it is or takes, is never read.
        with client.stream("POST", address, content=content, headers=headers) as answer:
            pass
    except httpx.TransportError as error:
        # Its text may quote the address.
        raise _NotNow(f"{type(error).__name__} while posting") from None
    if answer.is_success:
        return
    said_no = f"it answered {answer.status_code}"
    if answer.status_code in _TRIED_AGAIN:
        raise _NotNow(said_no)
    if answer.is_redirect:
        said_no += ", a redirect, which is not followed; give the address it leads to"
    raise _NotTaken(said_no)
