"""What worker, zygote and child say to each other: one order down, chunks or a refusal up.

Both sockets are SOCK_SEQPACKET: a message arrives whole or not at all, also from a process that is killed while it
writes. The first byte of an answer's message is its kind.
"""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import msgspec

MESSAGE_BYTES_MAX = 128 * 1024
"""One message on a socket: the kernel's default send buffer has 208 KB, and what does not fit into it is refused."""


FOLLOWED_DESCRIPTORS = 4
"""What comes with an order: the answer's socket, the place, the body and, if there is one, the registry."""


class Kind(IntEnum):
    """What a message of an answer is."""

    ACCEPTED = 1  # the body is parsed and checked; what goes wrong from here on is not the body's fault
    CHUNK = 2  # the next bytes of the answer
    END = 3  # the answer is whole
    REFUSAL = 4  # a `Refusal` in place of what is left of the answer
    DIED = 5  # a `Death`, sent by the zygote in the child's place


class Order(msgspec.Struct, frozen=True, tag="retrieval"):
    """One retrieval to be done: the kind of body, the form of answer, and what a body that is no JSON cannot say."""

    content_type: str
    accept: str
    features: list[str] = []
    feature_service: str | None = None
    full_feature_names: bool = False
    filter_by_created_timestamp: bool = False


class PagesOrder(msgspec.Struct, frozen=True, tag="pages"):
    """A process that makes web pages until nobody listens any more (`server.pages.process`)."""


@dataclass(frozen=True, slots=True)
class Task:
    """An order with its descriptors; `registry` is None where the repo's settings name one that is no file.

    An order for pages comes with its socket alone.
    """

    order: Order | PagesOrder
    answer: socket.socket
    place: int | None = None
    body: int | None = None
    registry: int | None = None

    @classmethod
    def of(cls, message: bytes, descriptors: list[int]) -> "Task":
        """Returns what was ordered."""
        order: Order | PagesOrder = msgspec.json.decode(message, type=Order | PagesOrder)
        answer, *others = descriptors
        return cls(order, socket.socket(fileno=answer), *others)

    def close(self) -> None:
        """Closes all descriptors of this process."""
        self.answer.close()
        for descriptor in (self.place, self.body, self.registry):
            if descriptor is not None:
                os.close(descriptor)


class Refusal(msgspec.Struct, frozen=True):
    """Why there is no answer.

    `error` names a class of `store.errors`. Where it is empty, `status` is an HTTP status, and with 500
    `traceback` is for the log.
    """

    message: str
    error: str = ""
    status: int = 500
    traceback: str = ""


class Death(msgspec.Struct, frozen=True):
    """A child that ended by a signal, or with an exit code that is not 0."""

    signal: int = 0
    exit_code: int = 0


def say(answer: socket.socket, kind: Kind, content: bytes = b"") -> None:
    """Sends one message.

    Raises:
        OSError: nobody reads any more.
    """
    answer.send(bytes((kind,)) + content)


def pieces(chunk: bytes) -> Iterator[bytes]:
    """Yields a chunk in pieces that each fit into one message."""
    size = MESSAGE_BYTES_MAX - 1
    for start in range(0, len(chunk), size):
        yield chunk[start : start + size]
