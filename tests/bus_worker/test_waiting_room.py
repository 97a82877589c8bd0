"""Who waits for room is told of it, in turn."""

import asyncio

import pytest

from bus_worker.waiting_room import WaitingRoom
from tests.helpers.house import until


class Hall:
    """A waiting room with slots that the test frees and takes."""

    def __init__(self) -> None:
        self.free = 0
        self.told: list[str] = []
        self.room = WaitingRoom(lambda: self.free, self.tell)

    async def tell(self, inbox: str) -> None:
        self.told.append(inbox)


async def test_who_has_waited_longest_is_told_of_room_first():
    hall = Hall()
    for inbox in ("a", "b", "a"):  # a second hint keeps the place
        hall.room.enter(inbox)
    await asyncio.sleep(0.02)
    assert hall.told == []
    hall.free = 1
    hall.room.wake()
    await until(lambda: hall.told == ["a"])
    hall.free = 0  # taken
    await asyncio.sleep(0.03)
    assert hall.told == ["a"]
    await hall.room.close()


async def test_room_that_the_one_told_does_not_take_is_offered_to_the_next():
    hall = Hall()
    for inbox in ("gone", "served", "b"):
        hall.room.enter(inbox)
    hall.room.leave("gone")
    hall.free = 1
    hall.room.wake()
    await until(lambda: hall.told == ["served"])
    hall.room.leave("served")  # by another worker
    await until(lambda: hall.told == ["served", "b"])
    await hall.room.close()


async def test_as_many_are_told_as_there_is_room_for():
    hall = Hall()
    hall.free = 2
    hall.room.enter("a")
    for inbox in ("b", "c"):
        hall.room.enter(inbox)
    await until(lambda: len(hall.told) >= 2)
    assert hall.told[:2] == ["a", "b"]
    await hall.room.close()


async def test_hints_are_forgotten_and_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bus_worker.waiting_room.REMEMBERED", 0.02)
    monkeypatch.setattr("bus_worker.waiting_room.MAX_WAITING", 3)
    hall = Hall()
    for inbox in "abcde":
        hall.room.enter(inbox)
    assert list(hall.room._until) == ["c", "d", "e"]
    await asyncio.sleep(0.03)
    hall.room.enter("f")
    hall.free = 1
    hall.room.wake()
    await until(lambda: bool(hall.told))
    assert hall.told == ["f"]
    await hall.room.close()
