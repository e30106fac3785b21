"""A small DNS server on loopback, whose responses a test changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from dnslib import AAAA, QTYPE, RCODE, RR, A, DNSRecord


@dataclass
class DnsServer(asyncio.DatagramProtocol):
    """Knows addresses by name; fails for all with `is_broken`, knows nothing of other names."""

    names: dict[str, list[str]] = field(default_factory=dict)
    ttl: int = 1
    is_broken: bool = False
    questions: int = 0
    port: int = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a question."""
        question = DNSRecord.parse(data)
        response = question.reply()
        name = str(question.q.qname).rstrip(".")
        self.questions += 1
        if self.is_broken:
            response.header.rcode = RCODE.SERVFAIL
        elif name not in self.names:
            response.header.rcode = RCODE.NXDOMAIN
        else:
            for address in self.names[name]:
                kind, value = ("AAAA", AAAA) if ":" in address else ("A", A)
                if QTYPE[question.q.qtype] == kind:
                    response.add_answer(
                        RR(name, question.q.qtype, rdata=value(address), ttl=self.ttl)
                    )
        self._transport.sendto(response.pack(), addr)  # type: ignore[attr-defined]


@asynccontextmanager
async def dns_server(**names: list[str]) -> AsyncIterator[DnsServer]:
    """A running server; `names` are keywords with `_` for `.`."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: DnsServer({name.replace("_", "."): known for name, known in names.items()}),
        local_addr=("127.0.0.1", 0),
    )
    try:
        yield server
    finally:
        transport.close()
