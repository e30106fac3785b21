"""Turn whatever the Redis client library raises into errors of the store, with their reasons.

The one place that knows the library's exceptions. Not all of them derive from `RedisError`
(those of a Cluster do not), and the library also lets through what it stumbles over itself:
`AttributeError` and `RuntimeError` where another call has let go of a connection, `KeyError`
from its table of slots. So what counts is where an exception was raised, not only its class.

A reason never repeats what the server or the library says about arguments: those may be
secrets. Of a response, the code (its first word) is safe, and some fixed texts.
"""

from __future__ import annotations

import re
from types import TracebackType

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ClusterDownError, RedisClusterException, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.oauth.models import StoreRejectedError, StoreUnavailableError

LIBRARY = ("redis", "hiredis")
REASON_CHARS = 300

_CODES = {
    "OOM": "out of memory (maxmemory)",
    "READONLY": "a replica takes no writes",
    "NOREPLICAS": "too few replicas (min-replicas-to-write)",
    "MISCONF": "the server can't write to its disk (stop-writes-on-bgsave-error)",
    "NOPERM": "the ACL of the user does not permit it",
    "NOAUTH": "a password is required",
    "WRONGPASS": "wrong user or password",
    "WRONGTYPE": "a key holds a value of another type",
    "LOADING": "the server is loading its data",
    "BUSY": "the server is busy with a script",
    "CLUSTERDOWN": "the cluster does not serve this slot",
    "MASTERDOWN": "the replica has lost its primary",
}
_CODE = re.compile(r"([A-Z]{2,})(?: |$)")
_CODE_IN_SCRIPT = re.compile(r"(?:-|@user_script:\s?[0-9]+: )([A-Z]{2,}) ", re.ASCII)
"""Before Redis 7, an error within a script is an ERR whose text holds the code."""
_UNKNOWN_COMMAND = re.compile(r"unknown (?:sub)?command ['`\"]?([A-Za-z|]{1,32})['`\"]?", re.ASCII)
_FIXED_TEXTS = {
    "DB index is out of range": "DB index is out of range",
    "invalid DB index": "invalid DB index",
    "max number of clients reached": "max number of clients reached",
    "user executing the script can't run this command": f"NOPERM, {_CODES['NOPERM']}",
}
_CLUSTER_TEXTS = re.compile(
    r"Redis Cluster cannot be connected|All slots are not covered|Cluster mode is not enabled"
    r"|Slot \"[0-9]+\" is not covered"
)


def as_store_error(error: Exception) -> StoreUnavailableError | None:
    """Translate an exception of a call; None where it is none of the library's.

    `StoreRejectedError` where the server responded, and rejected the command for itself, rather
    than for a cluster that is not whole.
    """
    if isinstance(error, ResponseError):
        is_outage = isinstance(error, ClusterDownError | TryAgainError)
        kind = StoreUnavailableError if is_outage else StoreRejectedError
        return kind(f"Redis: {_describe_response(error)}")
    if is_of_library(error) or isinstance(error, OSError | TimeoutError):
        return StoreUnavailableError(f"Redis: {_describe(error)}")
    return None


def is_foreseen(error: Exception) -> bool:
    """Whether an exception is an ordinary outage, rather than a defect worth a traceback."""
    return _has_library_class(error) or isinstance(error, OSError | TimeoutError)


def is_of_library(error: Exception) -> bool:
    """Whether the library defines an exception, or raised it."""
    return _has_library_class(error) or _is_raised_in_library(error.__traceback__)


def _has_library_class(error: Exception) -> bool:
    return any(_root(one.__module__) in LIBRARY for one in type(error).__mro__)


def _is_raised_in_library(traceback: TracebackType | None) -> bool:
    """Whether the innermost code of either the library or the gateway is the library's."""
    found = ""
    while traceback is not None:
        module = _root(traceback.tb_frame.f_globals.get("__name__") or "")
        if module in LIBRARY or module == "gateway":
            found = module
        traceback = traceback.tb_next
    return found in LIBRARY


def _root(module: str) -> str:
    return module.partition(".")[0]


def read_code(error: ResponseError) -> str:
    """The code of an error, also of one within a script, such as `READONLY`; empty without one."""
    text = _text(error)
    code = getattr(error, "status_code", None) or _first_word(text)
    match = _CODE_IN_SCRIPT.search(text) if code in {"", "ERR"} else None
    return match[1] if match else code


def _describe_response(error: ResponseError) -> str:
    text = _text(error)
    code = read_code(error)
    if code in _CODES:
        return f"{code}, {_CODES[code]}"
    if match := _UNKNOWN_COMMAND.search(text):
        return f"unknown command {match[1]}"
    for fixed, reason in _FIXED_TEXTS.items():
        if fixed in text:
            return reason
    return code or type(error).__name__


def _text(error: Exception) -> str:
    """The text of an error, without the command that a pipeline puts before it."""
    _, is_of_pipeline, text = str(error).rpartition(" of pipeline caused error: ")
    return text.strip("()'\",") if is_of_pipeline else text  # the text alone, or a tuple with it


def _first_word(text: str) -> str:
    match = _CODE.match(text)
    return match[1] if match else ""


def _describe(error: Exception) -> str:
    if isinstance(error, MasterNotFoundError):
        return "no Sentinel responds and knows a primary of this name"
    code = getattr(error, "status_code", None)
    if code in _CODES:
        return f"{code}, {_CODES[code]}"
    is_network = isinstance(error, OSError | RedisConnectionError | RedisTimeoutError)
    is_cluster = isinstance(error, RedisClusterException) and _CLUSTER_TEXTS.match(str(error))
    if (is_network or is_cluster) and _text(error).strip():
        return " ".join(_text(error).split())[:REASON_CHARS]
    if isinstance(error, TimeoutError | RedisTimeoutError):
        return "no response in time"
    return type(error).__name__
