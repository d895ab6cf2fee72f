"""Alarms told to a webhook: posted once, tried again where that may help, given up in time; its address never told."""

import logging
import socket

import pytest

from store.limits import WEBHOOK_ALARMS_MAX
from store.monitor import webhook
from store.monitor.webhook import Webhook, message_of, tell
from tests.monitor.hooks import Hook, hook, status
from tests.monitor.profiles import days
from tests.monitor.test_drift_files import report

MESSAGE = {"text": "1 feature has drifted", "alarms_total": 1}


@pytest.fixture(autouse=True)
def _no_wait_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "WEBHOOK_WAIT_SECONDS", 0.001)


def told(address: str, seconds: float = 20.0, attempts: int = 3) -> str:
    return tell(Webhook(address, seconds, attempts), MESSAGE)


@pytest.mark.parametrize("answer", [status(200), status(204), status(202), Hook.ENDLESS])
def test_alarms_are_posted_once_as_json(answer: bytes) -> None:
    with hook(answer) as running:
        assert told(running.url) == ""
    [(first, headers, body)] = running.posted
    assert first == "POST /T0/s3cr3t HTTP/1.1"
    assert headers["content-type"] == "application/json"
    assert body == MESSAGE


@pytest.mark.parametrize("trouble", [status(500), status(503), status(429), b"", b"HTTP/1.1 200", b"\x00\xff\r\n\r\n"])
def test_what_may_pass_is_tried_again(trouble: bytes) -> None:
    with hook(trouble, trouble, status(200)) as running:
        assert told(running.url) == ""
    assert len(running.posted) == 3


def test_attempts_are_bounded() -> None:
    with hook(status(500)) as running:
        assert told(running.url, attempts=2) == "the webhook did not take the alarms: it answered 500"
    assert len(running.posted) == 2


@pytest.mark.parametrize("code", [400, 401, 404, 410])
def test_a_refusal_is_final(code: int) -> None:
    with hook(status(code)) as running:
        assert told(running.url) == f"the webhook did not take the alarms: it answered {code}"
    assert len(running.posted) == 1


def test_a_redirect_is_not_followed() -> None:
    with hook(status(200)) as elsewhere, hook(status(307, f"Location: {elsewhere.url}\r\n")) as running:
        assert "it answered 307, a redirect, which is not followed" in told(running.url)
    assert elsewhere.posted == []


@pytest.mark.parametrize("answer", [Hook.HANG, Hook.DRIP])
def test_one_that_hangs_or_never_ends_its_head_is_given_up_in_time(answer: bytes) -> None:
    with hook(answer) as running:
        assert "did not take the alarms" in told(running.url, seconds=0.3)


def test_one_that_nobody_listens_at_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    answer = told(f"http://127.0.0.1:{port}/s3cr3t")
    assert answer == "the webhook did not take the alarms: ConnectError while posting"


@pytest.mark.parametrize(
    "address", ["", "hooks.example.com", "file:///etc/passwd", "ftp://x/y", "http://", "https:///s3cr3t"]
)
def test_what_is_no_http_address_is_refused_and_not_quoted(address: str) -> None:
    assert told(address) == (
        "the webhook's address is no http or https URL; correct it in monitoring.yaml or its variable"
    )


@pytest.mark.parametrize("address", ["http://a..b/s3cr3t", "http://s3cr3t.invalid/", f"http://{'s3cr3t' * 50}/"])
def test_a_name_that_leads_nowhere_is_told_without_it(address: str) -> None:
    answer = told(address, attempts=1)
    assert answer.startswith("the webhook did not take the alarms: ")
    assert "s3cr3t" not in answer


def test_a_proxy_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "s3cr3t://nowhere")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    answer = told("http://hooks.invalid/", attempts=1)
    assert answer == "the webhook did not take the alarms: ValueError before anything was posted"


def test_the_address_is_in_no_message_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answers = [status(500), status(404), b"", status(302, "Location: http://127.0.0.1/s3cr3t\r\n")]
    for answer in answers:
        with hook(answer) as running:
            assert "s3cr3t" not in told(running.url)
            assert str(running.port) not in told(running.url)
    assert "s3cr3t" not in caplog.text


def test_a_message_has_a_text_for_people_and_the_alarms_for_programs() -> None:
    message = message_of([report(days(0, 1), 0.3), report(days(1, 2), 0.01)])
    assert message["text"] == "1 feature has drifted\nweather: temp: as <b>in</b> the 'reference' é"
    assert message["alarms_total"] == 1
    [alarm] = message["alarms"]
    assert (alarm["subject"], alarm["feature"], alarm["measures"]) == ("weather", "temp", {"psi": 0.3})
    assert (alarm["from"], alarm["to"]) == ("1970-01-01T00:00:00+00:00", "1970-01-02T00:00:00+00:00")


@pytest.mark.parametrize("alarms", [WEBHOOK_ALARMS_MAX, WEBHOOK_ALARMS_MAX + 1])
def test_alarms_beyond_a_bound_are_counted(alarms: int) -> None:
    message = message_of([report(days(day, day + 1), 0.3) for day in range(alarms)])
    assert len(message["alarms"]) == WEBHOOK_ALARMS_MAX
    assert message["alarms_total"] == alarms
    assert message["text"].endswith("and 1 more") is (alarms > WEBHOOK_ALARMS_MAX)
