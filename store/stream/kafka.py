"""A Kafka topic as a feed: read by partition and offset, each partition of the topic an order of its own.

Where the reading stands is kept in Redis beside what was taken from it, not in Kafka's consumer groups: the two could
otherwise be lost or rolled back one without the other.
"""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from feast.data_format import JsonFormat
from feast.data_source import KafkaSource

from store.errors import ConfigError, DefinitionError, SourceUnreadable
from store.kernel.keys import feed_state_key
from store.limits import INBOX_ENTRIES_MAX
from store.online.views import say
from store.stream.context import StreamContext
from store.stream.feeding import FedRow
from store.windows_from_feast import is_external

CONFIG_VARIABLE = "LARDER_KAFKA_CONFIG"
_METADATA_SECONDS = 30.0
"""Between two looks at which partitions a topic has: they may be added to at any time."""

_TIMEOUT_SECONDS = 10.0
"""Deadline of a question to the brokers."""

_OWN_SETTINGS = frozenset({"bootstrap.servers", "group.id", "enable.auto.commit", "auto.offset.reset"})


def kafka_settings(project: str, servers: str, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Returns the settings of a consumer: Larder's own, and those of the file that `LARDER_KAFKA_CONFIG` names.

    The file has a line `name=value` for each of librdkafka's settings, such as those of a login; `#` begins a comment.

    Raises:
        ConfigError: the file cannot be read, or a line of it is no setting, or is one that Larder gives itself.
    """
    settings: dict[str, Any] = {
        "bootstrap.servers": servers,
        "group.id": f"larder-{project}",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
    }
    path = environ.get(CONFIG_VARIABLE, "").strip()
    if not path:
        return settings
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{CONFIG_VARIABLE}={path!r} cannot be read; name a file of lines name=value") from error
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, sign, value = (part.strip() for part in text.partition("="))
        # The line itself may hold a password, and is not quoted.
        if not sign or not name:
            raise ConfigError(f"{CONFIG_VARIABLE}={path!r}, line {number} is no setting; write it as name=value")
        if name in _OWN_SETTINGS:
            raise ConfigError(f"{CONFIG_VARIABLE}={path!r}, line {number}: {name!r} is Larder's to set; leave it out")
        settings[name] = value
    return settings


class KafkaTopic:
    """The topic of a Kafka source, as a feed.

    What its rows say lands in the batch source too, unless the user's own jobs fill that (the tag `external`).
    """

    def __init__(self, context: StreamContext, source: KafkaSource, view: Any) -> None:
        """Takes a source and one of the views that it feeds.

        Raises:
            DefinitionError: its messages are not in JSON.
        """
        options = source.kafka_options
        if not isinstance(options.message_format, JsonFormat):
            raise DefinitionError(
                f"Kafka source {source.name!r} has messages in {type(options.message_format).__name__}, which Larder "
                "does not read; write them as JSON objects and declare JsonFormat"
            )
        self.push_source: str = source.name
        self.task = f"kafka:{source.name}"
        self._topic: str = options.topic
        self._servers: str = options.kafka_bootstrap_servers
        self._to = "online" if is_external(view) else "online_and_offline"
        self._context = context
        self._consumer: Any = None
        self._partitions: frozenset[int] = frozenset()
        self._looked = float("-inf")

    def read(self) -> Sequence[FedRow]:
        """Returns the next messages, in the order of their offsets by partition.

        Raises:
            ConfigError: `confluent-kafka` is not installed, or its settings are wrong.
            SourceUnreadable: the brokers do not answer, or have no such topic.
        """
        self._assign()
        messages = self._consumer.consume(INBOX_ENTRIES_MAX, 0.0)
        for message in messages:
            if message.error() is not None:
                # What came with it is read again, from the offset that was recorded last.
                self.close()
                raise SourceUnreadable(f"Kafka topic {self._topic!r} cannot be read ({message.error()})")
        rows = [self._row(m.partition(), m.offset(), m.value()) for m in messages]
        return sorted(rows, key=lambda row: (row.origin, row.position))

    def done(self, rows: Sequence[FedRow]) -> None:
        """Records where the reading goes on."""
        ends = {row.origin: row.position[0] + 1 for row in rows}
        fields = [part for origin, end in ends.items() for part in (_offset_field(int(origin.rpartition(":")[2])), end)]
        key = feed_state_key(self._context.project, self.task)
        self._context.session.hold(say([("HSET", key, *fields)]))

    def close(self) -> None:
        """Ends the reading."""
        if self._consumer is not None:
            self._consumer.close()
        self._consumer, self._partitions, self._looked = None, frozenset(), float("-inf")

    def _row(self, partition: int, offset: int, value: bytes | None) -> FedRow:
        problem = "" if value is not None else "the message has no value; write a JSON object of column name to value"
        return FedRow(f"{self.task}:{partition}", (offset, 0), value or b"", self._to, problem)

    def _assign(self) -> None:
        """Has the consumer read all partitions of the topic, each from where its reading was recorded to go on."""
        if time.monotonic() - self._looked < _METADATA_SECONDS:
            return
        kafka = _confluent_kafka()
        try:
            if self._consumer is None:
                self._consumer = kafka.Consumer(kafka_settings(self._context.project, self._servers))
            topic = self._consumer.list_topics(self._topic, _TIMEOUT_SECONDS).topics[self._topic]
            if topic.error is not None:
                raise SourceUnreadable(f"Kafka topic {self._topic!r} at {self._servers!r}: {topic.error}; create it")
            found = frozenset(topic.partitions)
            if found != self._partitions:
                self._consumer.assign([
                    kafka.TopicPartition(self._topic, partition, offset)
                    for partition, offset in self._offsets(sorted(found), kafka.OFFSET_BEGINNING).items()
                ])  # fmt: skip
                self._partitions = found
        except kafka.KafkaException as error:
            self.close()
            raise SourceUnreadable(f"Kafka at {self._servers!r} cannot be read ({error.args[0]})") from error
        self._looked = time.monotonic()

    def _offsets(self, partitions: Sequence[int], beginning: int) -> dict[int, int]:
        fields = [_offset_field(partition) for partition in partitions]
        key = feed_state_key(self._context.project, self.task)
        (kept,) = self._context.session.hold(say([("HMGET", key, *fields)]))
        return {p: beginning if end is None else int(end) for p, end in zip(partitions, kept, strict=True)}


def _offset_field(partition: int) -> str:
    return f"offset:{partition}"


def _confluent_kafka() -> Any:
    try:
        import confluent_kafka
    except ImportError as error:
        raise ConfigError("a Kafka source needs confluent-kafka, which is missing; install larder[kafka]") from error
    return confluent_kafka
