"""Messages between the supervisor and its workers."""

from __future__ import annotations

import msgspec

from gateway.history.sampling import Slice
from gateway.oauth.limiter import FailingClient
from gateway.oauth.models import Change, ClientChange, TokenChange
from gateway.rate_limit import Demand, Quota
from gateway.upstream.status import UpstreamState


class Start(msgspec.Struct, tag="start", frozen=True):
    """To a worker, first of all: what it has to know."""

    version: str
    """Of the supervisor. After an upgrade on disk, a new worker is of another one."""
    config: bytes
    """For `gateway.app` alone to read. It holds secrets."""
    failing_clients: list[FailingClient]
    """Where the limit on failed clients stands."""
    generation: int = 0
    """Which configuration that is: each that is activated has a number."""
    log_level: str = "INFO"

    def __repr__(self) -> str:
        return f"<Start {self.version}>"


class SetLogLevel(msgspec.Struct, tag="log_level", frozen=True):
    """To a worker: say as much of yourself."""

    level: str


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """From a worker: it serves."""


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """From a worker: it could not start, and ends."""

    reason: str
    place: tuple[str | int, ...] = ()
    """The key of the configuration that it is about; empty where it is about none."""


class Collect(msgspec.Struct, tag="collect", frozen=True):
    """Asks a worker to report its metrics."""

    number: int


class MetricFamily(msgspec.Struct, frozen=True, array_like=True):
    """A metric and its samples."""

    name: str
    kind: str
    """`counter`, `gauge`, `histogram` ..."""
    text: str
    samples: list[tuple[str, dict[str, str], float]]
    exemplars: list[tuple[int, dict[str, str], float, float]] = []
    """Of some samples: which one, labels, value, and when (seconds since 1970)."""


class Snapshot(msgspec.Struct, tag="snapshot", frozen=True):
    """From a worker: its metrics."""

    families: list[MetricFamily]
    number: int = 0
    """Number of the `Collect` it responds to; 0 if unsolicited."""


class Sampled(msgspec.Struct, tag="sampled", frozen=True):
    """From a worker: what it counted since it last said so."""

    part: Slice


class UpstreamsReported(msgspec.Struct, tag="upstreams", frozen=True):
    """From a worker: how its upstreams are."""

    states: list[UpstreamState]


class Adopt(msgspec.Struct, tag="adopt", frozen=True):
    """To a worker: accept connections in place of this one, too."""

    number: int


class Release(msgspec.Struct, tag="release", frozen=True):
    """To a worker: this one accepts its connections itself again."""

    number: int


class Drain(msgspec.Struct, tag="drain", frozen=True):
    """To a worker: take no more connections, finish what is in flight, and end."""

    grace_s: float


class Stop(msgspec.Struct, tag="stop", frozen=True):
    """To a worker: end now."""


class PrepareConfig(msgspec.Struct, tag="prepare_config", frozen=True):
    """To a worker: build what serves another configuration, and say whether you could."""

    generation: int
    config: bytes
    """As in `Start`."""

    def __repr__(self) -> str:
        return f"<PrepareConfig {self.generation}>"


class CommitConfig(msgspec.Struct, tag="commit_config", frozen=True):
    """To a worker: serve by what you have prepared, and say when you do."""

    generation: int


class DiscardConfig(msgspec.Struct, tag="discard_config", frozen=True):
    """To a worker: another one could not prepare it, so drop it."""

    generation: int


class ConfigResult(msgspec.Struct, tag="config_answer", frozen=True):
    """From a worker: the response to `PrepareConfig` and `CommitConfig`."""

    generation: int
    problem: str = ""
    """Why it can't be; empty where it is done."""


class Revoked(msgspec.Struct, tag="revoked", frozen=True):
    """To all: a token, or all tokens of a client, stopped being valid."""

    client_id: str | None = None
    digest: bytes | None = None

    @classmethod
    def of(cls, change: Change) -> Revoked:
        """The message about a change."""
        if isinstance(change, ClientChange):
            return cls(client_id=change.client_id)
        return cls(digest=change.digest)

    @property
    def change(self) -> Change:
        """The change that the message is about."""
        if self.client_id is not None:
            return ClientChange(self.client_id)
        return TokenChange(self.digest or b"")


class ClientFailed(msgspec.Struct, tag="client_failed", frozen=True):
    """To all: a client at an address failed to authenticate."""

    client_id: str
    source: str
    state: str = ""


class ClientSucceeded(msgspec.Struct, tag="client_succeeded", frozen=True):
    """To all: a client at an address that had failed before proved who it is."""

    client_id: str
    source: str


class Acquire(msgspec.Struct, tag="acquire", frozen=True):
    """From a worker: count a request against rate limits."""

    number: int
    demands: list[Demand]


class Granted(msgspec.Struct, tag="granted", frozen=True):
    """To a worker: the response to `Acquire`."""

    number: int
    quota: Quota


ForAll = Revoked | ClientFailed | ClientSucceeded
"""What concerns every process. Each has a backstop, so that one may get lost."""

Message = (
    Start | SetLogLevel | Ready | Failed | Collect | Snapshot | Sampled | UpstreamsReported | Adopt
    | Release | Drain | Stop
    | Revoked | ClientFailed | ClientSucceeded | Acquire | Granted
    | PrepareConfig | CommitConfig | DiscardConfig | ConfigResult
)  # fmt: skip
