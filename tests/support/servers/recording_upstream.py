"""An upstream that keeps every byte and has a strict parser (h11) read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import h11
from support.servers.raw_upstream import OK, Conversation, RawUpstream


class ParsedRequest(NamedTuple):
    """A request as h11 parses it."""

    method: bytes
    target: bytes
    body: bytes = b""


@dataclass
class RecordingUpstream(RawUpstream):
    """Responds to each request that h11 finds; what h11 rejects is kept as well."""

    parsed: list[ParsedRequest] = field(default_factory=list)
    heads: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    raw: list[bytearray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.script = self._record

    def forget(self) -> None:
        """Start again."""
        self.parsed.clear()
        self.heads.clear()
        self.rejected.clear()
        self.raw.clear()

    async def _record(self, conversation: Conversation, _: RawUpstream) -> None:
        try:
            await self._read(conversation)
        except h11.RemoteProtocolError as error:
            self.rejected.append(str(error))

    async def _read(self, conversation: Conversation) -> None:
        raw = bytearray()
        self.raw.append(raw)
        connection = h11.Connection(h11.SERVER)
        head: h11.Request | None = None
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await conversation.reader.read(65536)
                raw += data
                connection.receive_data(data)
            elif isinstance(event, h11.Request):
                head, body = event, b""
                self.heads.append(list(event.headers))
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                self.parsed.append(ParsedRequest(head.method, head.target, body))
                await conversation.send(OK)
                response = h11.Response(status_code=200, headers=[("Content-Length", "0")])
                connection.send(response)
                connection.send(h11.EndOfMessage())
                connection.start_next_cycle()
            else:
                return
