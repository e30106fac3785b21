"""A client's connection that speaks HTTP/2: many requests at a time, each a stream.

It begins as an `H1Connection`, which hands the socket over: after ALPN chose `h2`, or where the
first bytes are HTTP/2's preface (prior knowledge). `Upgrade: h2c` is not offered (RFC 9113 dropped
it). Framing, HPACK and windows are the engine's; here are the streams, budgets and deadlines.

    start ─► GREETING ── SETTINGS ─► SERVING ── drain, max_age ─► DRAINING ── last stream ends ──┐
                │                       │  GOAWAY, PING; then the last GOAWAY                    │
                │ too slow              │ flood, error, idle                                     │
                ▼                       ▼                                                        ▼
             OVER: GOAWAY is sent, nothing is read any more, streams are gone ── lingers ─► closed

  - One write per turn of the loop: `_flush` takes what the engine has, as long as the transport
    is not paused, and then looks at the streams that wait for the client (`H2Stream.look`).
  - A request is handled in the call that brings its head; it is in `_streams` until both the
    engine and the pipeline have done with it, so that work that lasts longer than a reset counts.
  - What the engine rejects by itself is accounted for here: `stream_closed` of an unknown stream.
  - The deadline is one of: greeting, head, keep-alive (no stream), write, lingering.

RFC 9113 sections 3.3, 3.4 (start), 5.4 (errors), 6.8 (GOAWAY), 10.5 (denial of service).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from random import uniform
from typing import cast

from gateway.downstream.h2_deadline import H2Deadline
from gateway.downstream.h2_head import RequestReader, malformed, trailer_fields
from gateway.downstream.h2_intake import FRAMES_PER_PIECE, H2Intake
from gateway.downstream.h2_limits import (
    RESET_REFILL_S,
    TRUSTED_FACTOR,
    H2Settings,
    RefusedStreams,
    cause_of,
    make_engine,
)
from gateway.downstream.h2_stream import H2Channel, H2Stream
from gateway.downstream.request import NO_HEAD, NO_LINE, Peer, Request
from gateway.downstream.stream import ConnectionOwner, DiscardingStream
from gateway.http.errors import ClientClosedError, ProblemError, TooManyStreamsError
from gateway.http.h2 import (
    ENHANCE_YOUR_CALM,
    INADEQUATE_SECURITY,
    NO_ERROR,
    REFUSED_STREAM,
    SETTINGS_TIMEOUT,
    Fields,
    H2Error,
    goaway,
    is_adequate,
)
from gateway.http.h2_budget import CONTROL_FRAMES, CONTROL_REFILL_S, PER_REQUEST, Budget
from gateway.http.h2_liveness import PING, PING_AFTER_S, Liveness

H2_PROTOCOL = "HTTP/2.0"
"""As access logs name it."""
WRITE_BYTES = 256 * 1024
DRAIN_NOTICE_S = 1.0
"""Between the two GOAWAYs, unless the client acknowledges the first one before."""
LINGER_S = 1.0
MAX_LINGER_BYTES = 1024 * 1024
_DRAIN_PING = b"draining"


class H2Connection:
    """A client's connection: an `asyncio.Protocol` by its methods, not by its class, which would
    keep mypyc from compiling attributes."""

    __slots__ = (
        "_age", "_channel", "_client_code", "_control", "_deadline", "_engine", "_has_settings",
        "_ignored", "_intake", "_is_draining", "_is_over", "_last_id", "_limits", "_liveness",
        "_look", "_loop", "_notice", "_reader", "_refused", "_resets", "_server", "_settings",
        "_settled", "_streams", "is_write_paused", "peer", "transport",
    )  # fmt: skip

    def __init__(
        self,
        server: ConnectionOwner,
        loop: asyncio.AbstractEventLoop,
        peer: Peer,
        settings: H2Settings,
    ) -> None:
        peer.protocol = H2_PROTOCOL
        self.peer = peer
        self.transport: asyncio.Transport | None = None
        self.is_write_paused = False
        self._server = server
        self._loop = loop
        self._settings = settings
        self._limits = limits = server.limits
        scale = TRUSTED_FACTOR if peer.is_trusted else 1
        resets, now = settings.max_resets * scale, loop.time()
        self._resets = Budget(resets, RESET_REFILL_S, now)
        self._control = Budget(CONTROL_FRAMES * scale, CONTROL_REFILL_S, now)
        self._reader = RequestReader(peer, limits)
        self._channel = H2Channel(
            loop, limits, server.h2_counts, server.turns, control=self._control,
            window=settings.connection_window, flush=self._flush,
        )  # fmt: skip
        self._engine = make_engine(
            self,
            settings,
            head_bytes=limits.head_bytes,
            headers=limits.headers,
            resets=(resets + 1 + FRAMES_PER_PIECE, resets),  # it may end another frame first
        )
        self._intake = H2Intake(
            loop, self._engine, self._receive, server.turns, settings=settings, scale=scale
        )
        self._channel.engine, self._channel.intake = self._engine, self._intake
        self._streams = self._channel.streams
        self._settled: set[int] = set()
        """Streams that were accounted for at once, and are not closed yet."""
        self._last_id = 0
        self._client_code = NO_ERROR
        """Of its GOAWAY."""
        self._has_settings = False
        self._is_draining = self._is_over = False
        self._ignored = 0
        self._deadline = H2Deadline(loop, self._expire)
        self._notice: asyncio.TimerHandle | None = None
        self._age: asyncio.TimerHandle | None = None
        self._refused: RefusedStreams | None = RefusedStreams()
        """Until the client has acknowledged our settings."""
        self._liveness = Liveness(now, limits.body_timeout_s)
        self._look = loop.call_at(self._liveness.due, self._look_for_client)

    def __repr__(self) -> str:
        state = "closed" if self.transport is None else "over" if self._is_over else "open"
        return f"<H2Connection {state}, {len(self._streams)} streams>"

    def start(self, transport: asyncio.Transport, data: bytes) -> None:
        """Take the socket, and what has come on it."""
        self.transport = self._intake.transport = transport
        transport.set_protocol(cast(asyncio.Protocol, self))
        self._server.h2_counts.connections += 1
        if self._settings.max_age_s:
            age_s = self._settings.max_age_s * uniform(0.9, 1.1)  # noqa: S311 - spreads
            self._age = self._loop.call_later(age_s, self.drain)
        self._deadline.set(self._limits.head_timeout_s)
        self._flush()
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and not is_adequate(tls.version(), (tls.cipher() or ("",))[0]):
            self._end(INADEQUATE_SECURITY, "inadequate_security")
            return
        if self._server.is_draining:
            self.drain()
        if data:
            self.data_received(data)

    def reconfigure(self) -> None:
        """Apply the rules that the owner has now, but for the settings that the client has."""
        old = self.peer
        self._limits = self._channel.limits = self._server.limits
        self.peer = self._server.identify(
            old.address, scheme=old.scheme, certificate=old.certificate
        )
        self.peer.protocol = H2_PROTOCOL
        self._reader = RequestReader(self.peer, self._limits)
        if self._server.http2 is None:
            self.drain()

    # How it ends.

    def drain(self) -> None:
        """Ask the client to use another connection. Requests on their way are still served: the
        last GOAWAY follows when the client has the first, and streams that are open end well."""
        if self._is_draining or self._is_over or self.transport is None:
            return
        self._is_draining = True
        self._engine.announce_shutdown()
        self._flush()  # before the PING: its acknowledgement means that GOAWAY was read
        self._engine.ping(_DRAIN_PING)
        self._notice = self._loop.call_later(DRAIN_NOTICE_S, self._shut_down)
        self._channel.schedule()

    def _shut_down(self) -> None:
        if self._notice is not None:
            self._notice.cancel()
            self._notice = None
            self._engine.shut_down()
            self._channel.schedule()

    def reject(self) -> None:
        """Close: there are too many connections. No request of it is read."""
        self._end(NO_ERROR, "")

    def reset(self) -> None:
        """Close it now, whatever is in flight on it."""
        if self.transport is not None:
            self.transport.abort()

    def _end(self, code: int, cause: str, *, is_broken: bool = False) -> None:
        """End the connection and its streams with GOAWAY; `is_broken` where the engine can't say
        it any more. `cause` is counted."""
        transport = self.transport
        if self._is_over or transport is None:
            return
        self._stop(transport)
        if cause:
            self._server.h2_counts.errors[cause] += 1
        last = goaway(self._last_id, code)
        if not is_broken:
            self._engine.terminate(code)
            with contextlib.suppress(H2Error):
                last = self._engine.data_to_send()
        transport.write(last)
        self._close_streams()
        self._linger()

    def _stop(self, transport: asyncio.Transport) -> None:
        self._is_over = True
        self._server.turns.discard(transport, self._intake.stop())

    def _linger(self) -> None:
        """Close when what was written was taken. Closing on bytes that were not read resets the
        connection, and GOAWAY may be lost with it."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if transport.can_write_eof():
            transport.write_eof()
        self._deadline.set(LINGER_S)

    def _close_streams(self) -> None:
        for stream in tuple(self._streams.values()):
            stream.close()
            if stream.is_released:
                self._streams.pop(stream.id, None)

    def _expire(self) -> None:
        transport = self.transport
        if transport is None:
            return
        if self._is_over:
            transport.abort()
        elif self.is_write_paused:
            self._server.h2_counts.errors["stalled"] += 1
            transport.abort()
        elif self._intake.is_waiting:
            self._rest()  # it has sent something: the turn of that has not come
        elif not self._has_settings or self._deadline.is_head_due:
            self._end(SETTINGS_TIMEOUT, "head_timeout")
        elif not self._streams:
            self._end(NO_ERROR, "")

    def _look_for_client(self) -> None:
        """Find out whether a client that is quiet is still there, while it has requests."""
        now = self._loop.time()
        if self._streams and not self._is_over:
            if self._liveness.is_lost(now):
                self._server.h2_counts.errors["silent"] += 1
                self.reset()
                return
            if self._liveness.must_ask(now):
                self._engine.ping(PING)
                self._channel.schedule()
        at = self._liveness.due if self._streams else now + PING_AFTER_S
        self._look = self._loop.call_at(at, self._look_for_client)

    # asyncio's side.

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            self._ignored += len(data)
            if self._ignored > MAX_LINGER_BYTES and self.transport is not None:
                self.transport.abort()
            self._server.turns.discard(self.transport, len(data))
            return
        self._liveness.received_at = self._loop.time()
        self._receive(data)

    def _receive(self, data: bytes) -> None:
        try:
            self._intake.give(data)
        except H2Error as error:
            self._end(error.code, cause_of(error.code), is_broken=True)
            return
        if not self._streams:
            self._expect_rest()
        self._flush()

    def _expect_rest(self) -> None:
        """Set the deadline for the rest of a frame that has begun, such as a head; not while more
        of it may wait for its turn."""
        is_due = self._has_settings and not self._is_over and not self.is_write_paused
        if is_due and not self._intake.is_waiting:
            self._deadline.expect(self._limits, is_rest=self._intake.lacks_rest)

    def _flush(self) -> None:
        """Write what the engine has, and look at the streams that wait for the client."""
        try:
            self._write()
        except H2Error as error:
            self._end(error.code, cause_of(error.code), is_broken=True)
        except BaseException:  # as asyncio does where `data_received` raises: events are lost
            self.reset()
            raise

    def _write(self) -> None:
        self._channel.flushed()
        transport = self.transport
        if self._is_over or transport is None or transport.is_closing():
            return
        is_sent = False
        while not self.is_write_paused:
            data = self._engine.data_to_send(WRITE_BYTES)
            if data:
                transport.write(data)
                if self._refused is not None:
                    self._count_refused(self._refused.read(data))
            if len(data) < WRITE_BYTES:
                is_sent = True
                break
        self._engine.report()
        writing = self._channel.writing
        if writing:
            for stream in tuple(writing):
                if not stream.look(is_sent=is_sent):
                    writing.discard(stream)
                    self._forget(stream)

    def eof_received(self) -> None:
        """Close: a client of HTTP/2 that ends its side has no use for responses."""

    def pause_writing(self) -> None:
        self.is_write_paused = True
        self._deadline.set(self._limits.body_timeout_s)

    def resume_writing(self) -> None:
        self.is_write_paused = False
        self._deadline.clear()
        if self._is_over:
            self._deadline.set(LINGER_S)
            return
        self._rest()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._is_over = True
        self._intake.stop()
        self._deadline.close()
        for timer in (self._notice, self._age, self._look):
            if timer is not None:
                timer.cancel()
        self._notice = self._age = None
        self._server.h2_counts.connections -= 1
        self._server.lost(self)
        self._close_streams()
        self._channel.close()
        self._engine.close()

    # What the client does (`H2Events`).

    def head_received(self, stream_id: int, fields: Fields, ends: bool) -> None:
        self._last_id = max(self._last_id, stream_id)
        if self._is_over:
            return
        self._intake.requests += 1
        self._control.earn(PER_REQUEST)
        self._deadline.clear()
        if not self._engine.is_open(stream_id):
            # Reset by what came with it: no work begins.
            self._settled.add(stream_id)
            self._account(ClientClosedError("client_closed", "The client went away."))
            return
        if len(self._streams) >= self._settings.max_concurrent_streams:
            self._settled.add(stream_id)
            self._engine.reset(stream_id, REFUSED_STREAM)
            self._refuse_stream()
            return
        request = self._reader.read(fields, ends=ends)
        stream = H2Stream(self._channel, self._engine, stream_id, request, ends=ends)
        self._streams[stream_id] = stream
        self._server.handle(stream, request)

    def informational_received(self, stream_id: int, fields: Fields) -> None:
        """Never: clients send none."""

    def body_received(self, stream_id: int, data: bytes, ends: bool) -> None:
        self._intake.ignored.data_bytes += len(data)
        self._channel.held += len(data)
        stream = self._streams.get(stream_id)
        if stream is None:
            self._channel.give_back(stream_id, len(data))
        else:
            stream.receive(data, ends=ends)

    def trailers_received(self, stream_id: int, fields: Fields) -> None:
        if (stream := self._streams.get(stream_id)) is not None:
            stream.receive_trailers(trailer_fields(fields))

    def stream_reset(self, stream_id: int, code: int) -> None:
        if self._is_over:
            return
        self._server.h2_counts.resets["client"] += 1
        if (stream := self._streams.get(stream_id)) is not None:
            stream.is_reset_by_client = True
        if not self._resets.spend(self._loop.time()):
            self._end(ENHANCE_YOUR_CALM, "resets")

    def stream_closed(self, stream_id: int, code: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            if stream_id in self._settled:
                self._settled.discard(stream_id)
            elif not self._is_over:  # else of a head that was not read any more
                self._reject(code)
            return
        is_error = code != NO_ERROR and not (stream.is_reset or stream.is_reset_by_client)
        if is_error and not self._is_over:
            self._server.h2_counts.errors["stream"] += 1
        stream.close(is_malformed=is_error)
        self._channel.writing.discard(stream)
        self._forget(stream)
        if is_error and not self._resets.spend(self._loop.time()):
            self._end(ENHANCE_YOUR_CALM, "resets")

    def window_updated(self, stream_id: int, increment: int) -> None:
        self._spend_control()

    def settings_received(self, settings: Mapping[int, int]) -> None:
        if not self._has_settings:
            self._has_settings = True
            self._rest()
        self._spend_control()

    def settings_acknowledged(self) -> None:
        self._refused = None

    def ping_received(self, data: bytes) -> None:
        self._spend_control()

    def ping_acknowledged(self, data: bytes) -> None:
        self._spend_control()
        if data == _DRAIN_PING:
            self._shut_down()

    def goaway_received(self, last_stream_id: int, code: int) -> None:
        """The client opens no more streams: `connection_ended` comes with the last one."""
        self._spend_control()
        self._client_code = code

    def connection_ended(self, code: int) -> None:
        """Every stream has ended, and GOAWAY was sent or received: also where the engine has ended
        the connection itself, with an error."""
        if not self._is_over and self.transport is not None:
            self._stop(self.transport)
            if code not in (NO_ERROR, self._client_code):
                self._server.h2_counts.errors[cause_of(code)] += 1
            self._close_streams()
            self._linger()

    def _spend_control(self) -> None:
        if not self._control.spend(self._loop.time()):
            self._end(ENHANCE_YOUR_CALM, "control_frames")

    def _reject(self, code: int) -> None:
        """Account for a request that the engine did not let through."""
        if code == REFUSED_STREAM:
            self._refuse_stream()
            return
        self._server.h2_counts.errors["malformed"] += 1
        self._account(malformed())
        if not self._resets.spend(self._loop.time()):
            self._end(ENHANCE_YOUR_CALM, "resets")

    def _refuse_stream(self) -> None:
        self._server.h2_counts.errors["streams"] += 1
        self._account(TooManyStreamsError("too_many_streams", "Too many requests at once."))
        if not self._resets.spend(self._loop.time()):
            self._end(ENHANCE_YOUR_CALM, "resets")

    def _count_refused(self, stream_ids: list[int]) -> None:
        """Account for streams that the engine has refused without a report."""
        for stream_id in stream_ids:
            if stream_id not in self._settled and stream_id not in self._streams:
                self._refuse_stream()

    def _account(self, error: ProblemError) -> None:
        request = Request(NO_LINE, NO_HEAD, self.peer, error)
        self._server.handle(DiscardingStream(), request)

    def _forget(self, stream: H2Stream) -> None:
        if stream.is_closed and stream.is_released and stream.id in self._streams:
            del self._streams[stream.id]
            self._rest()

    def _rest(self) -> None:
        """Expect the next request within the keep-alive time, where none is in flight."""
        if not self._streams and not self._is_over and not self.is_write_paused:
            self._deadline.rest(self._limits)
            self._expect_rest()
