"""A Kafka topic as a source, read from the brokers that librdkafka imitates: each message once, poison told."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from feast.data_format import AvroFormat, JsonFormat
from feast.data_source import KafkaSource

from store.errors import ConfigError, DefinitionError, SourceUnreadable
from store.online.client import RedisSession
from store.stream.context import StreamContext
from store.stream.feeding import Feeder
from store.stream.feeds import Feeds
from store.stream.kafka import KafkaTopic, kafka_settings
from store.stream.replay import all_letters
from tests.redis_servers import RedisServer, poll_until
from tests.stream.shop import NOW, by_user, clicks_source, make_store
from tests.stream.test_inboxes import MISFITS, appended, row


@dataclass
class Brokers:
    producer: Any
    servers: str

    def send(self, content: str | bytes | None, partition: int = 0, topic: str = "clicks") -> None:
        self.producer.produce(topic, content, partition=partition)
        assert self.producer.flush(30) == 0


@pytest.fixture(scope="module")
def brokers() -> Brokers:
    """Brokers that librdkafka imitates within this process, reached over TCP like real ones."""
    producer = confluent_kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "unused"})
    found = producer.list_topics(timeout=30).brokers.values()
    return Brokers(producer, ",".join(f"{broker.host}:{broker.port}" for broker in found))


def source(servers: str, topic: str, message_format: Any = None, **tags: str) -> KafkaSource:
    batch = clicks_source()
    batch.tags = tags
    return KafkaSource(
        name="clicks",
        timestamp_field="at",
        message_format=message_format or JsonFormat(schema_json="user_id long"),
        kafka_bootstrap_servers=servers,
        topic=topic,
        batch_source=batch,
        watermark_delay_threshold=timedelta(minutes=5),
    )


@pytest.fixture
def topic(brokers: Brokers, request: pytest.FixtureRequest) -> str:
    """A topic of this test alone."""
    return f"clicks-{abs(hash(request.node.name))}"


@pytest.fixture
def context(
    repo: Path, server: RedisServer, brokers: Brokers, topic: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StreamContext]:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    store = make_store(repo, server.url, by_user(source=source(brokers.servers, topic)))
    context = StreamContext(repo, store.config)
    yield context
    context.close()


def feed(context: StreamContext) -> Feeder:
    """Returns the feeder of the one topic that is declared."""
    feeds = Feeds(context)
    (task,) = feeds.tasks()
    assert task == "kafka:clicks"
    feeds.begin(task)
    return feeds._feeders[task]


def step_until(feeder: Feeder, condition: Any) -> None:
    def is_done() -> bool:
        feeder.step()
        return bool(condition())

    poll_until(is_done, 60, what="the messages are passed on")


def test_messages_are_passed_on_once_and_what_does_not_fit_is_kept(
    server: RedisServer, context: StreamContext, brokers: Brokers, topic: str
) -> None:
    poison = [*MISFITS.values(), None]
    for partition in range(2):
        for number in range(5):
            brokers.send(row(float(number), number), partition, topic)
        for content in poison:
            brokers.send(content, partition, topic)
    feeder = feed(context)
    step_until(feeder, lambda: appended(server) == 10 and len(list(all_letters(context))) == 2 * len(poison))
    feeder.close()
    brokers.send(row(8.0), 1, topic)
    again = feed(context)
    step_until(again, lambda: appended(server) == 11)
    again.close()
    letters = list(all_letters(context))
    assert len(letters) == 2 * len(poison)
    assert {kept.letter.to for kept in letters} == {"online_and_offline"}
    offsets = server.client().hgetall("4:shop:feed:{kafka:clicks}")
    ends = {name: int(end) for name, end in offsets.items() if name.startswith(b"offset:")}
    assert ends == {b"offset:0": 5 + len(poison), b"offset:1": 6 + len(poison)}


@pytest.mark.parametrize("trips", [1, 3, 4, 5, 6, *(pytest.param(n, marks=pytest.mark.long) for n in range(14))])
def test_a_worker_killed_at_any_round_trip_passes_each_message_on_once(
    server: RedisServer,
    context: StreamContext,
    brokers: Brokers,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
    trips: int,
) -> None:
    for number in range(6):
        brokers.send(row(1.0, number), number % 2, topic)
        brokers.send("[", number % 2, topic)

    class Killed(BaseException):
        pass

    left, whole = trips, RedisSession._send

    def send(self: RedisSession, batch: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return whole(self, batch)

    first = feed(context)
    with monkeypatch.context() as patched:
        patched.setattr(RedisSession, "_send", send)
        with contextlib.suppress(Killed):
            step_until(first, lambda: left < -1)
    first.close()
    feeder = feed(context)
    step_until(feeder, lambda: appended(server) == 6 and len(list(all_letters(context))) == 6)
    feeder.close()


def test_a_topic_that_is_not_there_or_away_is_told_and_waited_for(
    context: StreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.stream.kafka._TIMEOUT_SECONDS", 0.5)
    views = context.views_of("clicks")
    away = KafkaTopic(context, source("127.0.0.1:1", "clicks"), views[0])
    with pytest.raises(SourceUnreadable, match=r"127\.0\.0\.1:1"):
        away.read()


def test_only_json_is_read_and_what_others_fill_does_not_land(context: StreamContext) -> None:
    view = context.views_of("clicks")[0]
    with pytest.raises(DefinitionError, match=r"AvroFormat.*JsonFormat"):
        KafkaTopic(context, source("x:1", "clicks", AvroFormat(schema_json="{}")), view)
    external = by_user(source=source("x:1", "clicks", external="true"))
    assert KafkaTopic(context, external.stream_source, external)._to == "online"
    assert KafkaTopic(context, source("x:1", "clicks"), view)._to == "online_and_offline"


def test_more_settings_come_from_a_file_that_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "kafka.properties"
    environ = {"LARDER_KAFKA_CONFIG": str(path)}
    path.write_text("# a login\nsasl.username = larder\n\nsasl.password=a=b\n")
    settings = kafka_settings("shop", "k:9092", environ)
    assert (settings["sasl.username"], settings["sasl.password"]) == ("larder", "a=b")
    assert (settings["bootstrap.servers"], settings["enable.auto.commit"]) == ("k:9092", False)
    assert kafka_settings("shop", "k:9092", {}).keys() < settings.keys()
    for content, words in (("nothing secret", "line 1"), ("a=b\n=c", "line 2"), ("group.id=x", "Larder's to set")):
        path.write_text(content)
        with pytest.raises(ConfigError, match=words) as caught:
            kafka_settings("shop", "k:9092", environ)
        assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        kafka_settings("shop", "k:9092", {"LARDER_KAFKA_CONFIG": str(tmp_path / "none")})
