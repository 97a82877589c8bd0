"""One attempt to tell a webhook: what is sent, where it never goes, how each failure is called."""

import asyncio
import base64
import logging
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpcore2
import pytest
import trustme
from pydantic import SecretStr
from standardwebhooks import Webhook

from bus_worker import webhook
from bus_worker.webhook import BACK_OFF, NotDelivered, Webhooks, retry_after
from bus_worker.webhook_rules import WebhookRules

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - the specification's example
BODY = b'{"job_id": "j1", "text": "h\xc3\xb6rt"}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


# --- a receiver, and who says where it is ------------------------------------------------------


@dataclass
class Receiver:
    """What came in at a real server."""

    port: int = 0
    connections: int = 0
    closed: int = 0
    asked_for: list[str | None] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://hooks.example:{self.port}/hook?token=hush"

    async def read(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests.append((line, headers, body))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(autouse=True)
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system trusts our authority."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Who is where: the answers to the look-ups of a name, one after the other."""
    answers: dict[str, list[list[str]]] = {"hooks.example": [["127.0.0.1"]]}

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if not answers.get(host):
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in answers[host].pop(0)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answers


def saying(answer: bytes) -> Answer:
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return say


agreeing = saying(OK)


@asynccontextmanager
async def receiver(
    tls: trustme.LeafCert | None,
    answer: Answer = agreeing,
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[Receiver]:
    """A server that reads one request on each connection, answers, and waits for the end."""
    here = Receiver()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here.connections += 1
        try:
            await here.read(reader)
            await answer(writer)
            while await reader.read(65_536):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            here.closed += 1
            writer.transport.abort()

    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.configure_cert(context)
        context.sni_callback = lambda _, name, __: here.asked_for.append(name)
    server = await asyncio.start_server(serve, host, port, ssl=context)
    here.port = server.sockets[0].getsockname()[1]
    async with server:
        yield here
        await until(lambda: here.closed == here.connections)


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not reached():  # noqa: ASYNC110 - both ends are sockets
            await asyncio.sleep(0.005)


@pytest.fixture
def certificate(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("hooks.example", "127.0.0.1")


async def told(
    url: str,
    *,
    allow: tuple[str, ...] = ("127.0.0.1",),
    secret: str | None = None,
    attempt: int = 1,
) -> None:
    webhooks = Webhooks(WebhookRules.read(SecretStr(secret) if secret else None, allow))
    try:
        await webhooks.deliver(url, BODY, job_id="j1", kind="done", attempt=attempt)
    finally:
        webhooks.close()


async def refused(url: str, *, allow: tuple[str, ...] = ("127.0.0.1",)) -> NotDelivered:
    with pytest.raises(NotDelivered) as caught:
        await told(url, allow=allow)
    assert "hush" not in str(caught.value)
    return caught.value


# --- what is sent ----------------------------------------------------------------------------


async def test_an_event_arrives_signed_as_standard_webhooks_verifies_it(certificate, names):
    names["hooks.example"] *= 2
    async with receiver(certificate) as here:
        await told(here.url, secret=SECRET)
        await told(here.url, secret=SECRET, attempt=2)
    for attempt, (line, headers, body) in enumerate(here.requests, start=1):
        assert line == "POST /hook?token=hush HTTP/1.1"
        assert body == BODY
        assert Webhook(SECRET).verify(body, headers) == {"job_id": "j1", "text": "hört"}
        assert headers.pop("webhook-signature").startswith("v1,")
        assert re.fullmatch(r"\d{10}", headers.pop("webhook-timestamp"))
        assert headers.pop("user-agent").startswith("bus-worker/")
        assert headers == {
            "host": f"hooks.example:{here.port}",
            "connection": "close",
            "content-type": "application/json",
            "content-length": str(len(BODY)),
            "webhook-id": "j1-done",
            "stt-job-id": "j1",
            "stt-event": "done",
            "stt-attempt": str(attempt),
        }
    assert here.asked_for == ["hooks.example"] * 2


async def test_a_plain_secret_signs_as_the_bytes_it_is(certificate, names):
    async with receiver(certificate) as here:
        await told(here.url, secret="correct horse")
    ((_, headers, body),) = here.requests
    assert Webhook(b"correct horse").verify(body, headers)
    assert base64.b64decode(headers["webhook-signature"].removeprefix("v1,"), validate=True)


async def test_without_a_secret_nothing_is_signed(certificate, names):
    async with receiver(certificate) as here:
        await told(here.url)
    ((_, headers, _),) = here.requests
    assert "webhook-signature" not in headers
    assert headers["webhook-id"] == "j1-done"


@pytest.mark.parametrize("word", ["a.b", "", "a b", "a\r\nX: 1", "ä"])
async def test_an_event_is_named_without_dots_and_spaces(word):
    with pytest.raises(ValueError, match="letters, digits"):
        await Webhooks(WebhookRules()).deliver(
            "https://hooks.example/", BODY, job_id="j1", kind=word
        )


# --- whom it is sent to ----------------------------------------------------------------------


async def test_the_certificate_must_be_for_the_name(authority, names):
    async with receiver(authority.issue_cert("other.example", "127.0.0.1")) as here:
        failure = await refused(here.url)
    assert (
        str(failure) == "the certificate of hooks.example is not trusted, or is not for that name"
    )
    assert failure.again
    assert here.requests == []


async def test_the_certificate_must_be_by_an_authority_that_the_system_trusts(names):
    async with receiver(trustme.CA().issue_cert("hooks.example")) as here:
        assert "not trusted" in str(await refused(here.url))
    assert here.requests == []


async def test_a_certificate_may_be_for_an_address(certificate):
    async with receiver(certificate) as here:
        await told(f"https://127.0.0.1:{here.port}/")
    ((_, headers, _),) = here.requests
    assert headers["host"] == f"127.0.0.1:{here.port}"
    assert here.asked_for == [None]


async def test_a_webhook_over_ipv6_is_told(authority):
    async with receiver(authority.issue_cert("::1"), host="::1") as here:
        await told(f"https://[::1]:{here.port}/", allow=("::1",))
    assert here.requests[0][1]["host"] == f"[::1]:{here.port}"


async def test_a_listed_name_may_do_without_tls(names):
    async with receiver(None) as here:
        await told(here.url.replace("https", "http"), allow=("hooks.example",))
    assert len(here.requests) == 1


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1%1", "fc00::1", "::ffff:127.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "0.0.0.1", "100.64.0.1", "192.0.0.1", "198.18.0.1", "224.0.0.1",
    ],
)  # fmt: skip
async def test_a_name_that_stands_for_a_private_address_is_never_called(
    address, certificate, names
):
    names["hooks.example"] = [[address]]
    async with receiver(certificate) as here:
        failure = await refused(here.url, allow=())
    assert str(failure) == "hooks.example stands for no public address"
    assert not failure.again
    assert here.connections == 0


async def test_only_what_is_permitted_of_a_name_is_called(certificate, names):
    names["hooks.example"] = [["10.0.0.1", "127.0.0.2", "127.0.0.1"]]
    async with (
        receiver(certificate) as here,
        receiver(None, host="127.0.0.2", port=here.port) as bad,
    ):
        await told(here.url)
    assert (len(here.requests), bad.connections) == (1, 0)


async def test_a_name_that_changes_its_mind_is_looked_up_once(certificate, names):
    """The first answer is good, the second leads inside."""
    names["hooks.example"] = [["127.0.0.1"], ["127.0.0.2"]]
    async with (
        receiver(certificate) as here,
        receiver(None, host="127.0.0.2", port=here.port) as bad,
    ):
        await told(here.url)
    assert (len(here.requests), bad.connections) == (1, 0)
    assert names["hooks.example"] == [["127.0.0.2"]]


async def test_the_next_address_is_tried_when_one_takes_no_connection(certificate, names):
    names["hooks.example"] = [["127.0.0.3", "127.0.0.1"]]
    async with receiver(certificate) as here:
        await told(here.url, allow=("127.0.0.0/8",))
    assert len(here.requests) == 1


async def test_no_proxy_of_the_environment_is_used(certificate, names, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with receiver(certificate) as here:
        await told(here.url)
    assert len(here.requests) == 1


async def test_a_url_that_the_rules_refuse_is_never_called(names):
    failure = await refused("https://localhost/?token=hush", allow=())
    assert str(failure) == "'webhook' must not lead to localhost, which is no public address"
    assert not failure.again


# --- what is answered ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_an_answer_of_2xx_is_success(status, certificate, names):
    async with receiver(
        certificate, saying(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
    ) as here:
        await told(here.url)


@pytest.mark.parametrize(
    ("status", "again"),
    [(304, False), (400, True), (404, True), (408, True), (410, False), (429, True), (500, True), (503, True)],
)  # fmt: skip
async def test_any_other_answer_is_a_failure_that_may_pass_or_not(
    status, again, certificate, names
):
    answer = b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\nhush!" % status
    async with receiver(certificate, saying(answer)) as here:
        failure = await refused(here.url)
    assert f"hooks.example answered {status}" in str(failure)
    assert failure.again is again
    assert failure.asked is None


@pytest.mark.parametrize(
    ("value", "asked"), [(b"7", 7), (b"Wed, 21 Oct 2026 07:28:00 GMT", None), (b"-1", None)]
)
async def test_a_receiver_may_say_when_to_come_back(value, asked, certificate, names):
    answer = b"HTTP/1.1 503 X\r\nretry-after: %s\r\nContent-Length: 0\r\n\r\n" % value
    async with receiver(certificate, saying(answer)) as here:
        assert (await refused(here.url)).asked == asked


async def test_a_redirect_is_never_followed(certificate, authority, names):
    async with receiver(authority.issue_cert("127.0.0.1")) as elsewhere:
        answer = (
            b"HTTP/1.1 302 X\r\nLocation: https://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n"
            % elsewhere.port
        )
        async with receiver(certificate, saying(answer)) as here:
            failure = await refused(here.url)
    assert str(failure) == "hooks.example answered 302, a redirect, and none is followed"
    assert not failure.again
    assert elsewhere.connections == 0


@pytest.mark.parametrize(
    ("head", "piece", "told_of"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n", b"x", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", True),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\n", b"A: x\r\n", False),
    ],
)
async def test_an_endless_answer_is_left_after_64_kilobytes(  # noqa: PLR0917
    head, piece, told_of, certificate, names, monkeypatch
):
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece * 10_000)
            await writer.drain()

    read, own, turn, turns = 0, webhook._Bounded.read, 0, []

    async def counted(self: httpcore2.AsyncNetworkStream, *args: object, **kwargs: object) -> bytes:
        nonlocal read
        data = await own(self, *args, **kwargs)
        turns.append(turn)
        read += len(data)
        return data

    async def another() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(webhook._Bounded, "read", counted)
    async with receiver(certificate, endless) as here:
        beside = asyncio.create_task(another())
        if told_of:
            await told(here.url)
        else:
            assert "did not speak HTTP" in str(await refused(here.url))
        beside.cancel()
    assert read == 65_536
    assert len(turns) == len(set(turns))  # others had their turn before each piece


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "LIMIT", 0.3)


async def dripping(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def test_an_answer_that_drips_is_not_waited_for(certificate, names, hurried):
    async with receiver(certificate, dripping) as here:
        failure = await refused(here.url)
    assert str(failure) == "hooks.example did not answer within 0.3 s"
    assert failure.again


async def test_who_said_200_was_told_even_if_the_rest_drips(certificate, names, hurried):
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        await dripping(writer)

    async with receiver(certificate, answer) as here:
        await told(here.url)


async def test_who_said_200_was_told_even_if_the_rest_breaks_off(certificate, names):
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nx")
        await writer.drain()
        writer.transport.abort()

    async with receiver(certificate, answer) as here:
        await told(here.url)


async def test_a_receiver_that_never_answers_is_left(certificate, names, hurried):
    async with receiver(certificate, saying(b"")) as here:
        assert (await refused(here.url)).again
        await until(lambda: here.closed == 1)


async def test_a_receiver_that_never_speaks_tls_is_left(names, hurried):
    async with receiver(None) as here:
        assert (await refused(here.url)).again
        await until(lambda: here.closed == here.connections == 1)


async def test_what_does_not_speak_tls_is_said_so(names):
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        failure = await refused(f"https://hooks.example:{port}/")
    assert str(failure) == "hooks.example does not speak TLS as we do"
    assert failure.again


@pytest.mark.parametrize(
    "answer", [b"hush, no HTTP\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200_000]
)
async def test_what_does_not_speak_http_is_a_failure(answer, certificate, names):
    async def speak(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.transport.close()

    async with receiver(certificate, speak) as here:
        failure = await refused(here.url)
    assert str(failure) == "hooks.example broke off, or did not speak HTTP"
    assert failure.again


async def test_a_closed_port_may_be_open_later(certificate, names):
    async with receiver(certificate) as here:
        pass
    failure = await refused(here.url)
    assert str(failure) == "hooks.example takes no connection"
    assert failure.again


async def test_a_name_that_is_not_found_may_be_there_later(names):
    failure = await refused("https://elsewhere.example/")
    assert str(failure) == "elsewhere.example is not found"
    assert failure.again


async def test_a_resolver_that_hangs_stops_nobody_else(certificate, names, hurried, monkeypatch):
    answered, known = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host: str, *args: object, **kwargs: object) -> object:
        if host == "slow.example":
            answered.wait(10)
        return known(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    webhooks = Webhooks(WebhookRules.read(None, ["127.0.0.1"]))
    try:
        async with AsyncExitStack() as stack:
            here = await stack.enter_async_context(receiver(certificate))
            stack.callback(answered.set)
            slow = asyncio.create_task(
                webhooks.deliver("https://slow.example/", BODY, job_id="j1", kind="done")
            )
            await webhooks.deliver(here.url, BODY, job_id="j2", kind="done")
            with pytest.raises(NotDelivered, match=r"slow\.example did not answer") as caught:
                await slow
            assert caught.value.again
    finally:
        webhooks.close()


async def test_many_names_that_hang_leave_threads_for_others(hurried, monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(30))
    webhooks = Webhooks(WebhookRules())
    try:
        slow = [
            webhooks.deliver(f"https://{n}.slow.example/", BODY, job_id="j1", kind="done")
            for n in range(40)
        ]
        failures = await asyncio.gather(*slow, return_exceptions=True)
        assert {type(failure) for failure in failures} == {NotDelivered}
        async with asyncio.timeout(30):
            assert await asyncio.to_thread(lambda: "a thread")
    finally:
        answered.set()
        webhooks.close()


async def test_who_is_cancelled_leaves_nothing_open(certificate, names):
    async with receiver(certificate, saying(b"")) as here:
        telling = asyncio.create_task(told(here.url))
        await until(lambda: len(here.requests) == 1)
        telling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await telling
        await until(lambda: here.closed == 1)


# --- what is told of it ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 500])
async def test_no_secret_reaches_a_log(status, certificate, names, caplog):
    caplog.set_level(logging.DEBUG)
    answer = b"HTTP/1.1 %d X\r\nContent-Length: 7\r\n\r\nprivate" % status
    async with receiver(certificate, saying(answer)) as here:
        (failure,) = await asyncio.gather(told(here.url, secret=SECRET), return_exceptions=True)
    assert isinstance(failure, NotDelivered) == (status == 500)
    assert "webhook for job j1" in caplog.text
    for secret in ("hush", "/hook", "private", SECRET[8:]):
        assert secret not in caplog.text


# --- when to come back -------------------------------------------------------------------------


def test_the_pauses_grow_and_end_before_a_result_is_forgotten():
    pauses = [retry_after(attempt) for attempt in range(1, len(BACK_OFF) + 1)]
    assert all(least <= pause <= 1.2 * least for least, pause in zip(BACK_OFF, pauses, strict=True))
    assert list(BACK_OFF) == sorted(BACK_OFF)
    assert sum(BACK_OFF) * 1.2 < 24 * 3600
    assert retry_after(len(BACK_OFF) + 1) is None


def test_a_receiver_may_ask_for_more_patience_but_not_for_ever():
    assert retry_after(1, 60) == 60
    assert retry_after(1, 1e9) == 3600
    assert retry_after(4, 1) >= BACK_OFF[3]
    assert retry_after(len(BACK_OFF) + 1, 1) is None
