"""The parts of a retrieval that can be looked at by themselves: places, spooled bodies, memory, patience."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from feast.errors import FeatureViewNotFoundException
from starlette.exceptions import HTTPException

from server.errors import STATUS
from server.retrieval.client import Retrieval, RetrievalFailed
from server.retrieval.memory import bounded
from server.retrieval.messages import MESSAGE_BYTES_MAX, Death, Kind, pieces, say
from server.retrieval.places import Places, clear_folder, clear_if_held, give_back, make_folder
from server.retrieval.spool import Spool
from server.retrieval.work import refusal_of
from server.routes.historical import Patience
from store.errors import BadBody, LarderError, OutOfSpace, TooLarge


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.beside_the_data_of(tmp_path, 2)


def test_as_many_places_are_given_as_there_are(places: Places) -> None:
    first, second = places.take(), places.take()
    assert first is not None
    assert second is not None
    assert places.take() is None
    assert places.is_full()
    os.close(first)
    assert not places.is_full()
    third = places.take()
    assert third is not None
    os.close(second)
    os.close(third)


def test_a_place_is_held_by_whoever_has_its_descriptor_and_free_when_that_one_dies(places: Places) -> None:
    place = places.take()
    assert place is not None
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=[place]
    )
    os.close(place)
    other = places.take()
    assert other is not None
    assert places.is_full()
    holder.kill()
    holder.communicate()
    assert not places.is_full()
    os.close(other)


def test_where_the_data_folder_is_not_writable_each_worker_has_places_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    places = Places.beside_the_data_of(tmp_path, 1)
    assert not places.is_full()
    assert tmp_path not in places.folder.parents


def test_a_place_knows_of_a_folder_before_it_is_there(tmp_path: Path) -> None:
    # Else a process that is killed in between would leave a folder behind for ever.
    place = Places(tmp_path, 1).take()
    assert place is not None
    base = tmp_path / "not there"
    with pytest.raises(FileNotFoundError):
        make_folder(place, base)
    noted = Path(os.fsdecode(os.pread(place, 4096, 0)))
    assert noted.parent == base
    os.close(place)


def test_a_folder_left_by_a_killed_retrieval_goes_with_the_next_sweep_or_holder(places: Places, tmp_path: Path) -> None:
    place = places.take()
    assert place is not None
    left = make_folder(place, tmp_path)
    (left / "spilled").write_text("x")
    places.sweep()
    assert left.exists()
    os.close(place)
    places.sweep()
    assert not left.exists()
    place = places.take()
    assert place is not None
    left = make_folder(place, tmp_path)
    following = make_folder(place, tmp_path)
    assert not left.exists()
    assert following.exists()
    clear_folder(place)
    os.close(place)


def test_a_place_that_was_given_back_is_cleared_no_more(places: Places, tmp_path: Path) -> None:
    mine = places.take()
    assert mine is not None
    folder = make_folder(mine, tmp_path)
    give_back(mine)
    assert not folder.exists()
    other = places.take()
    assert other is not None
    theirs = make_folder(other, tmp_path)
    # It is the same place, and somebody else's by now.
    clear_if_held(mine)
    assert theirs.exists()
    os.close(mine)
    clear_if_held(other)
    assert not theirs.exists()
    os.close(other)


def test_only_folders_of_retrievals_are_removed(places: Places, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    place = places.take()
    assert place is not None
    for name in (precious, tmp_path / "larder-retrieval-link"):
        if name != precious:
            name.symlink_to(precious)
        os.pwrite(place, os.fsencode(name), 0)
        clear_folder(place)
        assert precious.exists()
    os.close(place)


async def chunks_of(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.mark.anyio
async def test_bodies_are_counted_together_and_given_back() -> None:
    spool = Spool(10)
    first = await spool.receive(chunks_of(b"12345", b"678"))
    assert os.pread(first.descriptor, 100, 0) == b"12345678"
    with pytest.raises(HTTPException, match="10 bytes") as refused:
        await spool.receive(chunks_of(b"12", b"3"))
    assert refused.value.status_code == 503
    assert refused.value.headers
    assert "Retry-After" in refused.value.headers
    second = await spool.receive(chunks_of(b"12"))
    first.close()
    second.close()
    assert spool.held_bytes == 0


@pytest.mark.anyio
async def test_a_client_that_reads_nothing_is_given_up() -> None:
    async def never(_message: object) -> None:
        await asyncio.get_running_loop().create_future()

    patience = Patience(never, stall_seconds=0.01)
    with pytest.raises(RetrievalFailed, match="has not read"):
        await patience.send({"type": "http.response.body", "body": b""})


@pytest.mark.anyio
async def test_time_that_the_client_does_not_take_is_not_counted() -> None:
    sent = []

    async def at_once(message: object) -> None:
        sent.append(message)

    patience = Patience(at_once, stall_seconds=30.0, bytes_per_second=1_000)
    for _ in range(3):
        await patience.send({"type": "http.response.body", "body": b"x" * 1_000})
    assert len(sent) == 3
    assert 32 < patience.seconds_left <= 33


def test_memory_beyond_the_bound_is_refused_and_the_bound_does_not_stay() -> None:
    with pytest.raises(TooLarge, match="memory"), bounded(100_000_000):
        bytearray(1_000_000_000)
    assert len(bytearray(200_000_000)) == 200_000_000


def test_a_chunk_is_cut_into_pieces_that_fit_a_message() -> None:
    for size in (0, 1, MESSAGE_BYTES_MAX - 1, MESSAGE_BYTES_MAX, 3 * MESSAGE_BYTES_MAX):
        cut = list(pieces(bytes(size)))
        assert b"".join(cut) == bytes(size)
        assert all(len(piece) < MESSAGE_BYTES_MAX for piece in cut)


class Answered:
    """A retrieval whose process says what a test makes it say."""

    def __init__(self) -> None:
        ours, self.child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.retrieval = Retrieval(ours)

    def say(self, kind: Kind, content: bytes = b"") -> None:
        say(self.child, kind, content)

    def refuse(self, error: Exception) -> None:
        self.say(Kind.REFUSAL, msgspec.json.encode(refusal_of(error)))

    def die(self, signal: int = 0, exit_code: int = 0) -> None:
        self.say(Kind.DIED, msgspec.json.encode(Death(signal, exit_code)))
        self.child.close()


@pytest.fixture
def answered() -> Iterator[Answered]:
    made = Answered()
    yield made
    made.child.close()
    made.retrieval.close()


@pytest.mark.anyio
async def test_an_answer_is_its_chunks_up_to_its_end(answered: Answered) -> None:
    answered.say(Kind.ACCEPTED)
    for chunk in (b"one", b"", b"two"):
        answered.say(Kind.CHUNK, chunk)
    answered.say(Kind.END)
    assert [await answered.retrieval.next_chunk() for _ in range(4)] == [b"one", b"", b"two", None]


@pytest.mark.anyio
@pytest.mark.parametrize("error", sorted(STATUS, key=lambda error: error.__name__))
async def test_every_error_of_the_tree_comes_through_as_it_is(answered: Answered, error: type[LarderError]) -> None:
    answered.refuse(error("thing 'x': got 1, expected 2; do 3"))
    with pytest.raises(error) as raised:
        await answered.retrieval.next_chunk()
    assert type(raised.value) is error
    assert str(raised.value) == "thing 'x': got 1, expected 2; do 3"


@pytest.mark.anyio
async def test_an_error_defined_elsewhere_comes_through_as_its_nearest_ancestor(answered: Answered) -> None:
    class TooWide(TooLarge):
        pass

    answered.refuse(TooWide("x"))
    with pytest.raises(TooLarge, match="x"):
        await answered.retrieval.next_chunk()


@pytest.mark.anyio
async def test_feasts_own_refusals_come_through_with_their_status(answered: Answered) -> None:
    answered.refuse(FeatureViewNotFoundException("v"))
    with pytest.raises(HTTPException, match="v") as raised:
        await answered.retrieval.next_chunk()
    assert raised.value.status_code == 404


@pytest.mark.anyio
async def test_memory_that_runs_out_is_told_as_no_room(answered: Answered) -> None:
    answered.refuse(MemoryError())
    with pytest.raises(OutOfSpace, match="memory"):
        await answered.retrieval.next_chunk()


@pytest.mark.anyio
async def test_what_nobody_foresaw_comes_with_its_traceback(answered: Answered) -> None:
    try:
        _ = 1 // 0
    except ZeroDivisionError as error:
        answered.refuse(error)
    with pytest.raises(RetrievalFailed, match="ZeroDivisionError") as raised:
        await answered.retrieval.next_chunk()
    assert "_ = 1 // 0" in str(raised.value.__cause__)


@pytest.mark.anyio
async def test_after_the_first_chunk_nothing_is_a_refusal_any_more(answered: Answered) -> None:
    answered.say(Kind.CHUNK, b"one")
    answered.refuse(TooLarge("too late"))
    assert await answered.retrieval.next_chunk() == b"one"
    with pytest.raises(RetrievalFailed, match="too late"):
        await answered.retrieval.next_chunk()


@pytest.mark.anyio
async def test_a_death_after_the_first_chunk_is_no_refusal(answered: Answered) -> None:
    answered.say(Kind.CHUNK, b"one")
    answered.die(signal=9)
    assert await answered.retrieval.next_chunk() == b"one"
    with pytest.raises(RetrievalFailed, match="middle of its answer"):
        await answered.retrieval.next_chunk()


@pytest.mark.anyio
@pytest.mark.parametrize("number", [6, 11])
async def test_a_body_that_crashes_its_reader_is_the_bodys_fault(answered: Answered, number: int) -> None:
    answered.die(signal=number)
    with pytest.raises(BadBody, match=f"signal {number}"):
        await answered.retrieval.next_chunk()


@pytest.mark.anyio
@pytest.mark.parametrize("death", [{"signal": 9}, {"exit_code": 1}, {}])
async def test_other_deaths_before_the_answer_are_503(answered: Answered, death: dict[str, int]) -> None:
    if death:
        answered.die(**death)
    else:
        answered.child.close()
    with pytest.raises(HTTPException) as raised:
        await answered.retrieval.next_chunk()
    assert raised.value.status_code == 503
    assert raised.value.headers
    assert "Retry-After" in raised.value.headers
    assert ("ran out of memory" in raised.value.detail) == (death == {"signal": 9})
