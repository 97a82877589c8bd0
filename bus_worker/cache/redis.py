"""A cache in Redis, shared by all workers. redis-py's errors end here.

Redis may be dead, hung, slow, full or somebody else's: a request goes on without it. The first
timeout, or a few broken connections in a row, open a breaker; from then on no request spends
anything on it, until a probe of our own has found it well again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Self, TypeVar

import structlog
from redis import exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from bus_worker.addresses import shown_url
from bus_worker.errors import BadSetting, Unavailable

__all__ = ["RedisCache"]

_log = structlog.get_logger(__name__)

T = TypeVar("T")

TIMEOUT = 0.25
"""Seconds for one command, connecting and its second try included."""
FAILURES = 3
"""Broken connections in a row that open the breaker; one timeout does."""
PROBE_EVERY = 5.0
"""Seconds between two probes while the breaker is open."""
GET_OR_LOCK = """
local found = redis.call('GET', KEYS[1])
if found then return found end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[2]) == ARGV[1] and 1 or 0
"""
HOLD = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2])"
UNLOCK = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1])"
MAX_CONNECTIONS = 1024
"""More than requests in hand can ever want: they are made when all others are busy."""
BATCH = 500
"""Names looked at in one go while clearing; Redis serves others in between."""


class RedisCache:
    """One Redis and a breaker before it; an async context manager."""

    keeps = True

    def __init__(
        self, url: str, prefix: str, *, copy: str = "copy:", locked_for: float = 2.0
    ) -> None:
        """Connect nowhere yet.

        Args:
            prefix: begins every name of ours.
            copy: begins, after the prefix, the names of second copies, which `clear` does not count.
            locked_for: seconds that a lock lives when nobody holds on to it.

        Raises:
            BadSetting: not a URL of a Redis.
        """
        self._shown = shown_url(url)
        self._prefix = prefix
        self._copy = prefix + copy
        self._lock = prefix + "lock:"
        self._locked_for = int(locked_for * 1000)
        try:
            # What the URL asks for, ours over it: redis-py would retry timeouts too, and wait for seconds.
            options: dict[str, Any] = {
                **parse_url(url),
                "socket_timeout": TIMEOUT,
                "socket_connect_timeout": TIMEOUT,
                "retry": Retry(NoBackoff(), 0),
                "retry_on_timeout": False,
                "decode_responses": False,
                "max_connections": MAX_CONNECTIONS,
            }
            pool = ConnectionPool(**options)
            pool.connection_class(**pool.connection_kwargs)  # refuses options that there are not
        except (ValueError, TypeError) as exc:
            raise BadSetting(
                f"REDIS_URL={self._shown} is no Redis URL such as redis://:password@host:6379/0,"
                " or has an option that there is not",
                variable="REDIS_URL",
            ) from exc
        self._redis: Redis = Redis.from_pool(pool)
        self._open = False
        self._failures = 0
        self._probe_at = 0.0
        self._probing: asyncio.Task[None] | None = None
        self._refusing = False
        self._errors = 0
        self._stored = 0
        self._bytes = 0

    async def __aenter__(self) -> Self:
        """Look whether it is there, so that the log says so at the start."""
        await self._probe()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave it."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait({self._probing})
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._redis.aclose()
        except (exceptions.RedisError, OSError, TimeoutError) as exc:
            _log.debug("cache_close_failed", error=type(exc).__name__)

    async def round_trip(self) -> float:
        """Seconds that it takes to answer.

        Raises:
            Unavailable: it does not; says why.
        """
        began = time.perf_counter()
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._redis.ping()
        except (exceptions.RedisError, OSError, TimeoutError, UnicodeError) as exc:
            raise Unavailable(str(exc) or f"no answer within {TIMEOUT} s") from exc
        return time.perf_counter() - began

    def ready(self) -> bool:
        """Whether the breaker is closed; while it is open, a probe goes out now and then."""
        if not self._open:
            return True
        if time.monotonic() >= self._probe_at and (self._probing is None or self._probing.done()):
            self._probing = asyncio.create_task(self._probe(), name="cache-probe")
        return False

    async def get(self, name: str, limit: float) -> bytes | None:
        """The value, if Redis says so in time."""

        async def asked() -> bytes | None:
            found: Any = await self._redis.get(self._prefix + name)
            return found if isinstance(found, bytes) else None

        return await self._ask(asked, limit)

    async def get_or_lock(self, name: str, token: str, limit: float) -> tuple[bytes | None, bool]:
        """The value or the lock, in one round trip."""
        answer = await self._ask(
            partial(self._script, GET_OR_LOCK, (self._prefix + name, self._lock + name), token),
            limit,
        )
        if isinstance(answer, bytes):
            return answer, False
        if answer is None:  # full, read-only, or no scripts for us: it may still read
            return await self.get(name, limit), True
        return None, answer != 0

    async def hold(self, name: str, token: str) -> None:
        """Set the lock's time to live anew."""
        await self._ask(partial(self._script, HOLD, (self._lock + name,), token))

    async def unlock(self, name: str, token: str) -> None:
        """Delete the lock if it is this token's."""
        await self._ask(partial(self._script, UNLOCK, (self._lock + name,), token))

    async def put(
        self,
        values: Mapping[str, bytes],
        ttl: float,
        limit: float,
        *,
        unlock: tuple[str, str] | None = None,
    ) -> None:
        """Set them with their time to live, in one round trip."""
        lifetime = max(1, int(ttl * 1000))

        async def told() -> list[Any]:
            async with self._redis.pipeline(transaction=False) as pipe:
                for name, value in values.items():
                    pipe.set(self._prefix + name, value, px=lifetime)
                if unlock is not None:
                    pipe.eval(UNLOCK, 1, self._lock + unlock[0], unlock[1])
                # An error raised there would quote the command, and so somebody's words.
                answers: list[Any] = await pipe.execute(raise_on_error=False)
                return answers

        answers = await self._ask(told, limit)
        if answers is None:
            return
        refused = [answer for answer in answers if isinstance(answer, Exception)]
        if refused:
            self._refused(refused[0])
            return
        self._stored += len(values)
        self._bytes += sum(map(len, values.values()))
        if self._refusing:
            self._refusing = False
            _log.info("cache_takes_again", url=self._shown)

    async def clear(self) -> int:
        """Remove every name of ours, a batch at a time; never blocks the server."""
        cursor, count = 0, 0
        while True:
            cursor, names = await self._surely(partial(self._scan, cursor))
            names = [name for name in names if not name.startswith(self._lock.encode())]
            copies = {name for name in names if name.startswith(self._copy.encode())}
            await self._surely(partial(self._unlink, list(copies)))
            count += await self._surely(
                partial(self._unlink, [n for n in names if n not in copies])
            )
            if not cursor:
                return count

    def figures(self) -> dict[str, Any]:
        """Values and bytes stored by this worker, errors, and the breaker's state."""
        probing = self._probing is not None and not self._probing.done()
        return {
            "kind": "redis",
            "breaker": ("half-open" if probing else "open") if self._open else "closed",
            "errors": self._errors,
            "stored": self._stored,
            "bytes": self._bytes,
        }

    async def _script(self, script: str, names: tuple[str, ...], token: str) -> Any:
        """Run a script: Redis keeps what it has compiled, and nobody comes in between."""
        return await self._redis.eval(script, len(names), *names, token, self._locked_for)

    async def _scan(self, cursor: int) -> tuple[int, list[bytes]]:
        scanned: Any = await self._redis.scan(cursor, match=f"{self._prefix}*", count=BATCH)
        return int(scanned[0]), scanned[1]

    async def _unlink(self, names: list[bytes]) -> int:
        return int(await self._redis.unlink(*names)) if names else 0

    async def _surely(self, work: Callable[[], Awaitable[T]]) -> T:
        """What Redis answers.

        Raises:
            Unavailable: nothing.
        """
        answer = await self._ask(work)
        if answer is None:
            raise Unavailable(f"the cache {self._shown} cannot be reached")
        return answer

    async def _ask(self, work: Callable[[], Awaitable[T]], limit: float = TIMEOUT) -> T | None:
        """What Redis answers, or None where it does not."""
        if limit <= 0 or not self.ready():
            return None
        try:
            async with asyncio.timeout(min(limit, TIMEOUT)):
                answer = await self._twice(work)
        except (TimeoutError, exceptions.TimeoutError):
            self._failed("it did not answer in time", at_once=True)
        except exceptions.AuthenticationError as exc:
            self._failed(str(exc), at_once=True)
        except (exceptions.ConnectionError, OSError, UnicodeError) as exc:  # a host that is no name
            self._failed(str(exc))
        except exceptions.RedisError as exc:
            self._refused(exc)
        else:
            self._failures = 0
            return answer
        return None

    async def _twice(self, work: Callable[[], Awaitable[T]]) -> T:
        """Again on a fresh connection where one broke: the server may have been started anew."""
        try:
            return await work()
        except exceptions.AuthenticationError:
            raise
        except exceptions.ConnectionError:
            await self._redis.connection_pool.disconnect(inuse_connections=False)
            return await work()

    async def _probe(self) -> None:
        """Whether it is well (again)."""
        try:
            await self.round_trip()
        except Unavailable as exc:
            self._failed(exc.message, at_once=True)
        else:
            self._failures = 0
            if self._open:
                self._open = False
                _log.info("cache_back", url=self._shown)

    def _failed(self, why: str, *, at_once: bool = False) -> None:
        self._errors += 1
        self._failures += 1
        if at_once or self._failures >= FAILURES:
            self._probe_at = time.monotonic() + PROBE_EVERY
            if not self._open:
                self._open = True
                _log.warning("cache_away", url=self._shown, why=why[:200])

    def _refused(self, error: Exception) -> None:
        """It is there, but does not do as told: full, or read-only, or not for us."""
        self._errors += 1
        if not self._refusing:
            self._refusing = True
            _log.warning("cache_refuses", url=self._shown, why=str(error)[:200])
