"""An upstream that keeps every byte and lets a strict reader (h11) say what they mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import h11
from support.servers.raw_upstream import OK, Conversation, RawUpstream


class Reading(NamedTuple):
    """A request as h11 reads the bytes that came."""

    method: bytes
    target: bytes
    body: bytes = b""


@dataclass
class RecordingUpstream(RawUpstream):
    """Answers each request that h11 finds in what it gets; what h11 refuses is kept as well."""

    readings: list[Reading] = field(default_factory=list)
    heads: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    raw: list[bytearray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.script = self._authorize

    def forget(self) -> None:
        """Start anew."""
        self.readings.clear()
        self.heads.clear()
        self.refused.clear()
        self.raw.clear()

    async def _authorize(self, conversation: Conversation, _: RawUpstream) -> None:
        try:
            await self._read(conversation)
        except h11.RemoteProtocolError as error:
            self.refused.append(str(error))

    async def _read(self, conversation: Conversation) -> None:
        raw = bytearray()
        self.raw.append(raw)
        evaluate = h11.Connection(h11.SERVER)
        head: h11.Request | None = None
        body = b""
        while True:
            event = evaluate.next_event()
            if event is h11.NEED_DATA:
                data = await conversation.reader.read(65536)
                raw += data
                evaluate.receive_data(data)
            elif isinstance(event, h11.Request):
                head, body = event, b""
                self.heads.append(list(event.headers))
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                self.readings.append(Reading(head.method, head.target, body))
                await conversation.send(OK)
                response = h11.Response(status_code=200, headers=[("Content-Length", "0")])
                evaluate.send(response)
                evaluate.send(h11.EndOfMessage())
                evaluate.start_next_cycle()
            else:
                return
