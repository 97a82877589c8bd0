"""A bus as `deploy/nats` sets it up: all that its four users do passes, and the server minds none of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus_worker import doctor
from bus_worker.bus import connect
from bus_worker.cache import MemoryCache
from bus_worker.client import Job, TranscribeClient
from bus_worker.doctor import Finding
from bus_worker.errors import BadAudio, Cancelled, JobNotFound
from bus_worker.jobs import Limits
from bus_worker.messages import pack, unpack
from bus_worker.settings import Settings
from bus_worker.streams import make_streams
from bus_worker.testing import pretend
from bus_worker.webhook_rules import WebhookRules
from plugins.decode import decode
from tests.helpers.deployed import USERS, Deployed, deployed
from tests.helpers.gateway import Gateway, gateway
from tests.helpers.house import NAMES, Workers
from tests.helpers.jobs import receiver
from tests.helpers.shell import shell
from tests.helpers.tones import noise, wav_bytes

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIP = wav_bytes(noise(0.3))
LARGE = wav_bytes(noise(24))
LONG = wav_bytes(noise(70))
"""Three windows are cut from it."""
SLOW = {"pretend": {"seconds": 30.0}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployed]:
    """The server, on which the admin has made the streams."""
    async with deployed(tmp_path_factory.mktemp("nats")) as server:
        async with connect(server.address("admin")) as admin:
            await make_streams(admin.client, NAMES, "base")
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workers(bus: Deployed) -> AsyncIterator[Workers]:
    """Two workers of the default model, as the user that is theirs."""
    async with Workers(bus, **bus.who("worker")) as house:
        cache = MemoryCache()
        for _ in range(2):
            await house.start(
                decode, pretend, model="base", slots=2, seconds=0.02, segments=3,
                cache=cache, jobs=Limits(longest_clip=25.0),
                rules=WebhookRules.read(None, ("127.0.0.1",)),
                options={"decode": {"max_duration": 25.0}},
            )  # fmt: skip
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def publisher(bus: Deployed, workers: Workers) -> AsyncIterator[TranscribeClient]:
    """A service's client, which leaves the model to the bus."""
    async with TranscribeClient(bus.address("publisher"), timeout=10) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(bus: Deployed, workers: Workers) -> AsyncIterator[Gateway]:
    """A gateway."""
    who = {f"nats_{name}": value for name, value in bus.who("gateway").items()}
    async with gateway(bus.url, default_model=None, **who) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def raw(bus: Deployed, workers: Workers) -> AsyncIterator[Client]:
    """A publisher that has nothing of ours."""
    nc = await nats.connect(
        bus.url, user="publisher", password=bus.who("publisher")["password"],
        inbox_prefix=b"_INBOX.publisher",
    )  # fmt: skip
    yield nc
    await nc.close()


@pytest.fixture(autouse=True)
def nobody_tries_what_it_may_not(bus: Deployed, workers: Workers):
    """Whatever a test does, the server's log holds no violation afterwards."""
    yield
    assert bus.violations == []


async def dead(client: TranscribeClient, job: Job) -> None:
    """Wait for a job's dead letter."""
    async with asyncio.timeout(10):
        while True:
            try:
                await client.dead.get(job.id)
            except JobNotFound:
                await asyncio.sleep(0.02)
            else:
                return


# --- requests ----------------------------------------------------------------------------------


async def test_a_request_without_a_model_goes_to_the_one_of_the_mapping(
    publisher: TranscribeClient,
):
    heard = await publisher.transcribe(CLIP)
    assert (heard.text, heard.model.name) == ("4800 samples", "base")
    assert (await publisher.transcribe(CLIP)).cache_hit


async def test_large_audio_goes_by_claim_check_and_a_stream_tells_its_segments(
    publisher: TranscribeClient,
):
    assert len(LARGE) > 700_000
    parts = [segment.text async for segment in publisher.stream(LARGE, cache=False)]
    assert parts == [" part 0", " part 1", " part 2"]


async def test_who_waits_for_room_and_who_gives_up_are_heard(
    workers: Workers, publisher: TranscribeClient
):
    slow = [
        asyncio.create_task(publisher.transcribe(CLIP, model="base", stages=SLOW, cache=False))
        for _ in range(4)
    ]
    await asyncio.sleep(0.3)
    waiting = asyncio.create_task(publisher.transcribe(wav_bytes(noise(1)), model="base"))
    await asyncio.sleep(0.3)
    for task in slow:
        task.cancel()
    await asyncio.wait(slow)
    assert (await waiting).text == "16000 samples"


async def test_a_request_in_any_language_is_one_message(raw: Client):
    msg = await raw.request("stt.v1.transcribe", pack({"audio": CLIP}), timeout=5)
    assert unpack(msg.data)["text"] == "4800 samples"
    assert b"ping_response" in (await raw.request("$SRV.PING.stt", timeout=5)).data


# --- jobs --------------------------------------------------------------------------------------


async def test_a_long_recording_is_heard_in_windows_and_followed(publisher: TranscribeClient):
    job = await publisher.submit(LONG, priority="high")
    events = [event async for event in job.events()]
    assert events[-1].status == "done"
    assert {event.window for event in events if event.window is not None} >= {0, 1, 2}
    assert (await job.result()).duration == pytest.approx(70, abs=0.01)
    await job.erase()
    with pytest.raises(JobNotFound):
        await job.status()


async def test_a_large_job_under_a_key_is_one_job_and_is_erased_when_asked(
    publisher: TranscribeClient,
):
    jobs = [await publisher.submit(LARGE, idempotency_key="once") for _ in range(2)]
    assert jobs[0].id == jobs[1].id
    assert (await jobs[0].result(timeout=10)).text
    await jobs[0].erase()


async def test_a_job_that_is_cancelled_stops(publisher: TranscribeClient):
    job = await publisher.submit(CLIP, stages=SLOW)
    async with asyncio.timeout(5):
        while (await job.status()).status != "running":  # noqa: ASYNC110 - the record is on the bus
            await asyncio.sleep(0.02)
    await job.cancel()
    with pytest.raises(Cancelled):
        await job.result(timeout=5)
    await job.erase()


@pytest.mark.parametrize("place", ["_INBOX.publisher.mine", "stt.results.mine"])
async def test_the_end_is_told_where_the_publisher_listens_and_to_its_webhook(
    publisher: TranscribeClient, raw: Client, place: str
):
    heard: asyncio.Queue[Msg] = asyncio.Queue()
    sub = await raw.subscribe(place, cb=heard.put)
    await raw.flush()
    async with receiver() as hooks:
        await publisher.submit(CLIP, reply_to=place, webhook=hooks.url)
        said = unpack((await asyncio.wait_for(heard.get(), 10)).data)
        async with asyncio.timeout(10):
            while not hooks.heard:  # noqa: ASYNC110 - a worker tells it
                await asyncio.sleep(0.02)
    assert said["text"] == "4800 samples"
    await sub.unsubscribe()


async def test_a_job_that_failed_is_the_admins_to_hand_in_again(
    bus: Deployed, publisher: TranscribeClient, tmp_path: Path
):
    jobs = [await publisher.submit(b"no audio" + bytes(n)) for n in range(3)]
    for job in jobs:
        with pytest.raises(BadAudio):
            await job.result(timeout=10)
        await dead(publisher, job)
    await jobs[0].erase()
    admin = {"cwd": tmp_path, **bus.variables("admin")}
    listed = await shell("jobs", "dead", **admin)
    assert [job.id in listed.out for job in jobs] == [False, True, True]
    assert "bad_audio" in (await shell("jobs", "dead", "show", jobs[1].id, **admin)).out
    again = await shell("jobs", "dead", "resubmit", jobs[1].id, **admin)
    assert (again.status, again.err) == (0, "")
    with pytest.raises(BadAudio):
        await publisher.job(again.out.strip()).result(timeout=10)
    assert (await shell("jobs", "dead", "drop", jobs[2].id, **admin)).status == 0


# --- the gateway -------------------------------------------------------------------------------


async def test_the_gateway_does_all_it_can(door: Gateway):
    file = {"file": ("a.wav", CLIP, "audio/wav")}
    async with door.caller() as http:
        for path in ("/transcribe", "/v1/audio/transcriptions"):
            more = {"model": "whisper-1"} if path.startswith("/v1") else {}
            answer = await http.post(path, files=file, data=more)
            assert (answer.status_code, answer.json()["text"]) == (200, "4800 samples")
        large = await http.post("/transcribe", files={"file": ("b.wav", LARGE, "audio/wav")})
        assert large.status_code == 200
        for path in ("/health", "/ready", "/stats", "/v1/models", "/metrics"):
            assert (await http.get(path)).status_code == 200, path
        assert len((await http.get("/health")).json()["workers"]) == 2
        assert (await http.delete("/cache")).status_code == 200


async def test_the_gateway_takes_jobs_tells_of_them_and_erases_them(door: Gateway):
    async with door.caller() as http:
        for audio in (CLIP, b"no audio"):
            answer = await http.post("/jobs", files={"file": ("a.wav", audio, "audio/wav")})
            place = answer.headers["location"]
            told = (await http.get(f"{place}/events")).text
            assert f'"status":"{"done" if audio == CLIP else "failed"}"' in told
            assert (await http.delete(place)).status_code in {200, 204}
            assert (await http.get(place)).status_code == 404


# --- from the shell ----------------------------------------------------------------------------


async def test_the_doctor_is_content_whoever_asks(bus: Deployed):
    def settings(user: str) -> Settings:
        who = {f"nats_{name}": value for name, value in bus.who(user).items()}
        return Settings(nats_url=(bus.url,), default_model="base", **who)

    async def looks(user: str) -> list[Finding]:
        return [finding async for finding in doctor._bus(settings(user))]

    for found in await asyncio.gather(*map(looks, USERS)):
        assert [finding.well for finding in found] == [True] * 4, found
        assert "STT_CLAIMS keeps more" in found[1].says
        assert "2 with base" in found[3].says


@pytest.mark.parametrize("user", ["publisher", "admin"])
async def test_whoever_asks_sees_what_the_workers_count(bus: Deployed, user: str, tmp_path: Path):
    ended = await shell("top", "--once", cwd=tmp_path, **bus.variables(user))
    assert (ended.status, "2 of 2 ready" in ended.out) == (0, True)


async def test_the_admin_empties_caches(bus: Deployed, workers: Workers):
    async with TranscribeClient(bus.address("admin")) as client:
        assert len(await client.clear_cache()) == 2
