"""The tries of one request: another one where the first failed, deadlines over them, hedging.

Most requests never have such an object. It is made when a try fails, or at once where the
upstream has deadlines for tries or hedges. What may be done twice is decided here, once:
a request none of whose bytes left, or one of an idempotent method without a body
(RFC 9110 section 9.2.2).
"""

from __future__ import annotations

import asyncio

from gateway.http.errors import (
    ConnectError,
    ConnectTimeoutError,
    PerTryTimeoutError,
    ProblemError,
    ResponseHeadTimeoutError,
    TotalTimeoutError,
    UpstreamClosedError,
    UpstreamError,
)
from gateway.http.fields import Trailers
from gateway.http.response_head import ResponseHead
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.pool import unforeseen
from gateway.upstream.retry_policy import CONNECT_FAILURE, HEDGE, REFUSED, RESET, STATUS
from gateway.upstream.stream import ResponseSink, UpstreamRequestHead, UpstreamStream
from gateway.upstream.upstream import Upstream

MAX_REFUSALS = 3
"""How often a request is sent again that was not processed."""


class RetriableExchange(ResponseSink):
    """The exchange that attempts are made for: what they ask of it, and have it do."""

    request_head: UpstreamRequestHead
    """What the upstream gets."""
    expires_at = 0.0
    """When the client's own deadline ends (`grpc-timeout`), on the loop's clock; 0 for none."""

    @property
    def has_response(self) -> bool:
        """Whether the head of a response came."""
        raise NotImplementedError

    def is_harmless_twice(self) -> bool:
        """Whether a request of which bytes left may be sent again."""
        raise NotImplementedError

    def restart(self, endpoint: Endpoint) -> None:
        """Try again, there."""
        raise NotImplementedError

    def leave(self) -> None:
        """Give the stream of this try up, or the wait for one."""
        raise NotImplementedError

    def attempt_failed(self, error: UpstreamError) -> None:
        """Try again or finish: this try failed, and nothing of a response was sent."""
        raise NotImplementedError

    def cut(self, error: ProblemError) -> None:
        """Give everything up."""
        raise NotImplementedError

    def adopt(self, endpoint: Endpoint, stream: UpstreamStream) -> None:
        """Continue with this stream; the one of the first try is given up."""
        raise NotImplementedError


class Attempts:
    """The tries of one exchange."""

    def __init__(
        self, exchange: RetriableExchange, upstream: Upstream, endpoint: Endpoint, key: str
    ) -> None:
        self._exchange = exchange
        self._upstream = upstream
        self._key = key
        self._tried = [endpoint]
        self._retries = 0
        self._refusals = 0
        """How often an upstream did not process it."""
        self._is_counted = False
        """Whether the budget counts a retry of ours."""
        self._hedged: HedgedAttempt | None = None
        self._is_hedge_alone = False
        """Whether the first try has failed meanwhile."""
        self._try_timer: asyncio.TimerHandle | None = None
        self._total_timer: asyncio.TimerHandle | None = None
        self._hedge_timer: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None

    # Deadlines.

    def begin(self) -> None:
        """The exchange begins, with deadlines of its upstream or of its client."""
        loop = asyncio.get_running_loop()
        total_s, expires_at = self._upstream.total_s, self._exchange.expires_at
        if total_s and expires_at:
            expires_at = min(expires_at, loop.time() + total_s)
        elif total_s:
            expires_at = loop.time() + total_s
        if expires_at:
            self._total_timer = loop.call_at(expires_at, self._end_total)
        if self._upstream.hedge_after_s and self._exchange.is_harmless_twice():
            self._hedge_timer = loop.call_later(self._upstream.hedge_after_s, self._hedge)
        if not self._exchange.request_head.has_body:
            self._begin_try()

    def request_sent(self) -> None:
        """All of the request is on its way: time runs also for one with a body."""
        if self._exchange.request_head.has_body:
            self._begin_try()

    def _begin_try(self) -> None:
        per_try_s = self._upstream.per_try_s
        if self._try_timer is not None:
            self._try_timer.cancel()
            self._try_timer = None
        if per_try_s:
            loop = asyncio.get_running_loop()
            self._try_timer = loop.call_later(per_try_s, self._end_try)

    def _end_try(self) -> None:
        self._try_timer = None
        if self._exchange.has_response:
            return
        self._exchange.leave()
        self._exchange.failed(
            PerTryTimeoutError("upstream_per_try_timeout", "The upstream took too long.")
        )

    def _end_total(self) -> None:
        self._total_timer = None
        self._exchange.cut(
            TotalTimeoutError("upstream_total_timeout", "The request exceeded its total timeout.")
        )

    # Another try.

    def after_failure(self, error: UpstreamError, *, had_response: bool) -> bool:
        """Whether something else goes on after a try that failed."""
        if self._hedged is not None:
            self._is_hedge_alone = True
            return True
        if isinstance(error, ConnectError | ConnectTimeoutError):
            return self._retry(CONNECT_FAILURE)
        if had_response or not isinstance(
            error, UpstreamClosedError | ResponseHeadTimeoutError | PerTryTimeoutError
        ):
            return False
        return self._exchange.is_harmless_twice() and self._retry(RESET)

    def after_refusal(self) -> bool:
        """Whether a request that was not processed is sent again: always, whatever the policy,
        but not for ever."""
        if self._hedged is not None or self._refusals >= MAX_REFUSALS:
            return False
        upstream = self._upstream
        # At once, since a connection that ends well says so; then only after a pause.
        pause_s = 0.0
        if self._refusals:
            pause_s = upstream.retries.backoff.pause_s(self._refusals, upstream.chance.random())
        self._refusals += 1
        if self._try_timer is not None:
            self._try_timer.cancel()
            self._try_timer = None
        upstream.counts.retries[REFUSED] += 1
        self._pause = asyncio.get_running_loop().call_later(pause_s, self._restart)
        return True

    def after_response(self, status: int) -> bool:
        """Whether something else goes on in place of a response with this status."""
        hedged = self._hedged
        if hedged is not None:
            if status >= 500:
                self._is_hedge_alone = True
                return True
            self._hedged = None
            hedged.abandon()
        return (
            status in self._upstream.retries.statuses
            and self._exchange.is_harmless_twice()
            and self._retry(STATUS)
        )

    def _retry(self, cause: str) -> bool:
        upstream = self._upstream
        policy = upstream.retries
        if self._retries >= policy.attempts or not policy.covers(cause):
            return False
        if not self._take_from_budget():
            return False
        self._retries += 1
        upstream.counts.retries[cause] += 1
        if self._try_timer is not None:
            self._try_timer.cancel()
            self._try_timer = None
        pause_s = policy.backoff.pause_s(self._retries, upstream.chance.random())
        self._pause = asyncio.get_running_loop().call_later(pause_s, self._restart)
        return True

    def _take_from_budget(self) -> bool:
        upstream = self._upstream
        if self._is_counted:
            return True
        if not upstream.retry_budget.try_take(upstream.active_requests):
            upstream.counts.overflows["max_retries"] += 1
            return False
        self._is_counted = True
        return True

    def _restart(self) -> None:
        self._pause = None
        endpoint = self._upstream.choose_other(self._key, self._tried)
        self._tried.append(endpoint)
        if not self._exchange.request_head.has_body:
            self._begin_try()
        self._exchange.restart(endpoint)

    # A second try beside the first.

    def _hedge(self) -> None:
        self._hedge_timer = None
        if self._exchange.has_response or self._pause is not None or not self._take_from_budget():
            return
        endpoint = self._upstream.choose_other(self._key, self._tried)
        self._tried.append(endpoint)
        self._upstream.counts.retries[HEDGE] += 1
        self._hedged = HedgedAttempt(self._exchange, self, endpoint)
        self._hedged.start()

    def hedge_responded(self, status: int) -> bool:
        """Whether the rival's response is the one that counts."""
        if status >= 500 and not self._is_hedge_alone:
            self._hedged = None
            return False
        self._hedged = None
        return True

    def hedge_failed(self, error: UpstreamError) -> None:
        """The rival gave no response."""
        self._hedged = None
        if self._is_hedge_alone:
            self._is_hedge_alone = False
            self._exchange.attempt_failed(error)

    # The end.

    def close(self) -> None:
        """Nothing more is tried, and no deadline is left."""
        for timer in (self._try_timer, self._total_timer, self._hedge_timer, self._pause):
            if timer is not None:
                timer.cancel()
        self._try_timer = self._total_timer = self._hedge_timer = self._pause = None
        if self._hedged is not None:
            self._hedged.abandon()
            self._hedged = None
        if self._is_counted:
            self._is_counted = False
            self._upstream.retry_budget.give_back()


class HedgedAttempt(ResponseSink):
    """A second try beside one that takes its time; the first good response wins. Only for requests
    that may be sent twice.

    It keeps what it receives to itself until its response is the one that counts: then the
    exchange continues with its stream, and the first one is given up.
    """

    def __init__(self, exchange: RetriableExchange, attempts: Attempts, endpoint: Endpoint) -> None:
        self._exchange = exchange
        self._attempts = attempts
        self._endpoint = endpoint
        self._stream: UpstreamStream | None = None
        self._task: asyncio.Task[None] | None = None
        self._has_won = False

    def start(self) -> None:
        """Send the request on an idle connection, or on a new one."""
        stream = self._endpoint.pool.try_open(self)
        if stream is None:
            self._task = asyncio.get_running_loop().create_task(self._open())
        else:
            self._send(stream)

    async def _open(self) -> None:
        try:
            stream = await self._endpoint.pool.open(self)
            self._task = None
            self._send(stream)
        except UpstreamError as error:
            self._task = None
            self._attempts.hedge_failed(error)
        except Exception as error:
            self._task = None
            self._attempts.hedge_failed(unforeseen(error))

    def _send(self, stream: UpstreamStream) -> None:
        self._stream = stream
        stream.send_request(self._exchange.request_head, ends=True)

    def abandon(self) -> None:
        """Give up: the other try was first."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    def _wins(self, status: int) -> bool:
        if self._has_won:
            return True
        stream = self._stream
        if stream is None:
            return False
        if not self._attempts.hedge_responded(status):
            self._endpoint.responded(status)
            self.abandon()
            return False
        self._has_won = True
        self._exchange.adopt(self._endpoint, stream)
        return True

    # The stream calls these. Interim responses are not passed on: which response counts is not
    # known yet.

    def whole(self, head: ResponseHead, body: bytes) -> None:
        if self._wins(head.status):
            self._exchange.whole(head, body)

    def head(self, head: ResponseHead) -> None:
        if self._wins(head.status):
            self._exchange.head(head)

    def body(self, piece: bytes) -> None:
        if self._has_won:
            self._exchange.body(piece)

    def flush(self) -> None:
        if self._has_won:
            self._exchange.flush()

    def end(self, trailers: Trailers = ()) -> None:
        if self._has_won:
            self._exchange.end(trailers)

    def upgraded(self, head: ResponseHead, rest: bytes) -> None:
        if self._wins(head.status):
            self._exchange.upgraded(head, rest)

    def failed(self, error: UpstreamError) -> None:
        if self._has_won:
            self._exchange.failed(error)
        else:
            self._stream = None
            self._endpoint.failed(error.reason)
            self._attempts.hedge_failed(error)
