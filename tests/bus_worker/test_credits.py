"""Slots offered to the bus: never more than there is room for, never a message lost."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from bus_worker.bus import Bus
from bus_worker.credits import Credits
from bus_worker.embedded import NatsServer
from tests.helpers.house import Workers, until


class Desk:
    """Handles messages for as long as told, and remembers how many at once."""

    def __init__(self, seconds: float = 0.05) -> None:
        self.seconds = seconds
        self.now = self.most = 0
        self.done: list[bytes] = []

    async def handle(self, msg: Msg) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(self.seconds)
        self.now -= 1
        self.done.append(msg.data)
        if msg.reply:
            await msg._client.publish(msg.reply, msg.data)


async def ask(nc: Client, data: bytes, limit: float = 10) -> bytes:
    """Ask until somebody has room."""
    async with asyncio.timeout(limit):
        while True:
            reply = await nc.request("work", data, timeout=limit)
            return reply.data


async def knock(nc: Client, data: bytes, limit: float = 10) -> bytes:
    async with asyncio.timeout(limit):
        while True:
            try:
                return await ask(nc, data, limit)
            except NoRespondersError:
                await asyncio.sleep(0.005)


async def open_desk(workers: Workers, desk: Desk, slots: int = 1) -> tuple[Bus, Credits]:
    bus = await workers.bus()
    offered = Credits(bus, "work", "group", slots, desk.handle)
    await offered.start()
    workers.stack.push_async_callback(offered.stop, 2)
    await bus.client.flush()
    return bus, offered


async def test_a_full_house_is_said_at_once(workers: Workers):
    desk = Desk(0.5)
    await open_desk(workers, desk, slots=2)
    nc = (await workers.bus()).client
    inbox = nc.new_inbox()
    answers: list[Msg] = []

    async def cb(msg: Msg) -> None:
        answers.append(msg)

    await nc.subscribe(inbox, cb=cb)
    for n in range(5):
        await nc.publish("work", b"%d" % n, reply=inbox)
    await until(lambda: len(answers) == 5)
    refused = [m for m in answers if (m.headers or {}).get("Status") == "503"]
    assert len(refused) == 3
    assert desk.most == 2


async def test_many_requests_on_few_slots_are_all_served(workers: Workers):
    desks = [Desk(0.002) for _ in range(3)]
    for desk in desks:
        await open_desk(workers, desk, slots=2)
    nc = (await workers.bus()).client
    sent = [b"%d" % n for n in range(300)]
    assert await asyncio.gather(*(knock(nc, data) for data in sent)) == sent
    assert sorted(itertools.chain.from_iterable(desk.done for desk in desks), key=int) == sent
    assert all(desk.most <= 2 for desk in desks)


@pytest.mark.parametrize("busy", [False, True])
async def test_a_restarted_server_never_gets_more_than_the_slots(
    busy, workers: Workers, bus_server: NatsServer
):
    """nats-py restores subscriptions on reconnect without their limit: six of six came at once."""
    desk = Desk(0.3)
    bus, offered = await open_desk(workers, desk)
    nc = (await workers.bus()).client
    inbox = nc.new_inbox()
    if busy:
        await nc.publish("work", b"first", reply=inbox)
        await until(lambda: offered.busy == 1)
    await bus_server.stop()
    await until(lambda: not bus.connected and not nc.is_connected)
    await bus_server.start()
    await until(lambda: bus.connected and nc.is_connected)
    sent = [b"%d" % n for n in range(6)]
    got = await asyncio.gather(*(knock(nc, data) for data in sent))
    assert got == sent
    assert desk.most == 1
    assert offered.overshoot == 0


async def test_a_second_message_on_one_credit_is_kept_and_run_next(workers: Workers):
    desk = Desk(0.05)
    bus, offered = await open_desk(workers, desk)
    (sub,) = offered._idle
    for data in (b"1", b"2", b"3"):  # as the server does when it is asked between SUB and UNSUB
        await bus.client._process_msg(sub._id, b"work", b"", data, None)
    await until(lambda: len(desk.done) == 3)
    assert desk.done == [b"1", b"2", b"3"]
    assert desk.most == 1
    assert offered.overshoot == 2
    await until(lambda: offered.free == 1)


async def test_leaving_again_and_again_loses_nothing(workers: Workers):
    desk = Desk(0.001)
    await open_desk(workers, desk, slots=1)  # one stays
    nc = (await workers.bus()).client
    over = asyncio.Event()

    async def come_and_go() -> None:
        bus = await workers.bus()
        while not over.is_set():
            offered = Credits(bus, "work", "group", 2, desk.handle)
            await offered.start()
            await asyncio.sleep(0.003)
            assert await offered.stop(5)
            bus.on_lost.clear()
            bus.on_back.clear()

    leavers = [asyncio.create_task(come_and_go()) for _ in range(3)]
    sent = [b"%d" % n for n in range(1000)]
    try:
        for start in range(0, 1000, 20):
            batch = sent[start : start + 20]
            assert await asyncio.gather(*(knock(nc, data, 5) for data in batch)) == batch
    finally:
        over.set()
        await asyncio.gather(*leavers)
    assert len(desk.done) == len(sent)


async def test_stopping_waits_for_what_is_in_hand(workers: Workers):
    desk = Desk(0.2)
    _, offered = await open_desk(workers, desk)
    nc = (await workers.bus()).client
    call = asyncio.create_task(ask(nc, b"x"))
    await until(lambda: offered.busy == 1)
    assert await offered.stop(5) is True
    assert await call == b"x"
    assert desk.done == [b"x"]


async def test_stopping_gives_up_waiting_at_its_limit(workers: Workers):
    desk = Desk(30)
    _, offered = await open_desk(workers, desk)
    nc = (await workers.bus()).client
    await nc.publish("work", b"x")
    await until(lambda: offered.busy == 1)
    assert await offered.stop(0.05) is False
    await offered.abandon()
    assert offered.busy == 0


async def test_an_offered_slot_costs_one_subscription(workers: Workers):
    """Spent subscriptions go: a long-lived worker must not gather them."""
    desk = Desk(0)
    bus, _ = await open_desk(workers, desk, slots=2)
    nc = (await workers.bus()).client
    for n in range(200):
        await knock(nc, b"%d" % n)
    await until(lambda: len(bus.client._subs) <= 3)


class Chore:
    """Work that came on no credit; done when the test says so."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.waiting = 0

    async def work(self) -> None:
        self.begun.set()
        await self.may_end.wait()

    @asynccontextmanager
    async def meanwhile(self) -> AsyncIterator[None]:
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1


async def test_work_takes_a_slot_that_the_bus_is_offered_no_more(workers: Workers):
    desk, chore = Desk(0), Chore()
    _, offered = await open_desk(workers, desk)
    nc = (await workers.bus()).client
    assert offered.begin(chore.work())
    assert (offered.busy, offered.free, offered.room) == (1, 0, 0)
    await until(lambda: not offered._spent)  # the server has heard of it
    with pytest.raises(NoRespondersError):
        await ask(nc, b"x")
    chore.may_end.set()
    assert await knock(nc, b"x") == b"x"


async def test_work_that_there_is_no_slot_for_is_not_begun(workers: Workers):
    desk, chore = Desk(0.2), Chore()
    _, offered = await open_desk(workers, desk)
    call = asyncio.create_task(ask((await workers.bus()).client, b"x"))
    await until(lambda: offered.busy == 1)
    assert not offered.begin(chore.work())
    await call
    assert not chore.begun.is_set()


async def test_a_message_on_its_way_to_a_slot_that_work_took_waits_for_the_next(workers: Workers):
    desk, chore = Desk(0), Chore()
    bus, offered = await open_desk(workers, desk)
    (sub,) = offered._idle
    assert offered.begin(chore.work())
    await bus.client._process_msg(sub._id, b"work", b"", b"x", None)  # sent before it was withdrawn
    await until(lambda: offered.overshoot == 1)
    assert desk.done == []
    chore.may_end.set()
    await until(lambda: desk.done == [b"x"])


async def test_work_that_waits_gets_the_next_slot_before_the_bus_does(workers: Workers):
    desk, first, following = Desk(0), Chore(), Chore()
    _, offered = await open_desk(workers, desk)
    nc = (await workers.bus()).client
    offered.begin(first.work())
    offered.begin_next(following.work(), following.meanwhile())
    await until(lambda: following.waiting == 1)
    assert (offered.busy, offered.aside, offered.room) == (1, 1, -1)
    call = asyncio.create_task(knock(nc, b"x"))
    first.may_end.set()
    await following.begun.wait()
    assert (offered.busy, offered.aside, following.waiting) == (1, 0, 0)
    assert desk.done == []
    following.may_end.set()
    assert await call == b"x"


async def test_work_that_is_called_off_while_it_waits_never_begins(workers: Workers):
    desk, first, following = Desk(0), Chore(), Chore()
    _, offered = await open_desk(workers, desk)
    nc = (await workers.bus()).client
    offered.begin(first.work())
    task = offered.begin_next(following.work(), following.meanwhile())
    await until(lambda: following.waiting == 1)
    first.may_end.set()
    task.cancel()
    await asyncio.wait({task})
    assert not following.begun.is_set()
    assert await knock(nc, b"x") == b"x"
    assert (offered.busy, offered.aside) == (0, 0)


async def test_work_called_off_in_the_moment_it_gets_its_slot_gives_it_back(workers: Workers):
    desk, first, following = Desk(0), Chore(), Chore()
    _, offered = await open_desk(workers, desk)
    offered.begin(first.work())
    task = offered.begin_next(following.work(), following.meanwhile())
    await until(lambda: following.waiting == 1)
    first.may_end.set()
    await until(lambda: task in offered._running)
    task.cancel()
    await asyncio.wait({task})
    await until(lambda: offered.free == 1)
    assert (offered.busy, offered.aside) == (0, 0)


async def test_of_work_whose_threads_hang_it_is_known_since_when(workers: Workers):
    _, offered = await open_desk(workers, Desk(0))
    told, may_end = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        offered.told()
        told.set()
        await may_end.wait()

    offered.begin(work())
    await told.wait()
    assert len(offered.stuck) == 1
    assert await offered.stop(30, answered=lambda: len(offered.stuck) == offered.busy) is False
    may_end.set()
    await until(lambda: not offered.stuck)
    assert offered.busy == 0
