"""The kinds of values that a configuration is made of: durations, scopes, URLs, secrets."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Literal, get_type_hints
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
)
from pydantic.json_schema import WithJsonSchema

from gateway.claim_path import MAX_CHARS, parse_claim_path
from gateway.patterns import compile_pattern
from gateway.store_url import PostgresUrl, RedisUrl, parse_store_url
from gateway.templates import (
    IN_REDIRECTS,
    IN_REQUEST_HEADERS,
    IN_RESPONSE_HEADERS,
    parse_template,
)
from gateway.units import Filled, Int

MAX_PORT = 65535
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
MAX_HOST_CHARS = 253
_PROTOCOL_NAME = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)?")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_BLANKS = re.compile(r"[\x00-\x20\x7f\ufeff]")
_UNFILLED = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*|\$\([A-Za-z_][A-Za-z0-9_]*\)")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_SCOPE = re.compile(r"[!#-\[\]-~]+")
_URI_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
# What browsers and systems act on by themselves.
_UNSAFE_SCHEMES = frozenset(
    {
        "http", "https", "ws", "wss", "ftp", "file", "data", "javascript", "vbscript", "blob",
        "about", "filesystem", "view-source", "jar", "mailto", "intent",
    }
)  # fmt: skip
_ABSOLUTE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!$-;=?-Z_a-z~%\[\]]+")
_HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_CREDENTIAL_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]*")
_MEDIA_TYPE = re.compile(r"[a-z0-9-]+/[a-z0-9.+-]+")
_ORIGIN = re.compile(
    r"[a-z][a-z0-9+.-]*://(\*\.)?([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
)
_AUTHORITY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(:[0-9]{1,5})?")
# What a caller may fill in comes behind a whole host, so that it can't lead to another one:
# `//evil.example` and `https://shop.example.evil.example` would.
_REDIRECT = re.compile(
    r"(?:(?:https?|\{scheme\})://(?:[A-Za-z0-9.:_\[\]-]|\{host\})+(?:[/?]|\{path\}|\{uri\}|$)"
    r"|/(?:[A-Za-z0-9_.~?-]|$)|\{path\}|\{uri\})"
)
_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")


def _check_scope(scope: str) -> str:
    if not _SCOPE.fullmatch(scope):
        raise ValueError("expected visible ASCII without space, quote and backslash (RFC 6749 3.3)")
    return scope


def _check_upgrade(name: str) -> str:
    if not _PROTOCOL_NAME.fullmatch(name):
        raise ValueError("expected the name of a protocol, such as SPDY/3.1 or tcp")
    if name.lower().partition("/")[0] in {"h2c", "http", "tls"}:
        # What follows would be requests that nothing here has read.
        raise ValueError(f"{name} would hide requests from the gateway")
    return name


def _check_method(method: str) -> str:
    if not _METHOD.fullmatch(method):
        raise ValueError("expected an upper-case method such as GET")
    return method


def _check_host(host: str) -> str:
    if not _HOST.fullmatch(host):
        raise ValueError(
            "expected a lower-case host name without port, optionally with a leading `*.`"
        )
    return host


def _check_network(cidr: str) -> str:
    try:
        ipaddress.ip_network(cidr)
    except ValueError:
        try:
            suggestion = ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            raise ValueError("expected a network such as 10.0.0.0/8 or ::1/128") from None
        raise ValueError(f"has host bits set, did you mean {suggestion}?") from None
    return cidr


def _check_proxy(peer: str) -> str:
    return peer if peer == "unix" else _check_network(peer)


def _check_mode(mode: Any) -> Any:
    if not isinstance(mode, str) or not re.fullmatch("0?[0-7]{3}", mode):
        raise ValueError('expected an octal mode in quotes, such as "0660"')
    return mode


def _check_text(text: str) -> str:
    """Text of an identifier: a blank or line break at an end is a slip, and never matches."""
    if text != text.strip() or "\ufeff" in text or _CONTROLS.search(text):
        raise ValueError(
            "must not hold a control character, nor begin or end with a blank, a line break or a "
            "byte order mark"
        )
    return text


def _split(url: str) -> SplitResult:
    _refuse_blanks(url)
    return urlsplit(url)


def _refuse_blanks(url: str) -> None:
    # `urlsplit` leaves line breaks and tabs out, in silence.
    if _BLANKS.search(url):
        raise ValueError("must not hold a blank, a line break or another control character")


def _check_target(url: str) -> str:
    expected = "expected http://host:port, https://host:port or unix:///path"
    _refuse_blanks(url)
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or 0 < parts.port <= MAX_PORT
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/"):
        return url
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_valid:
        raise ValueError(expected)
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{expected}, without path, query and user")
    if not parts.netloc.startswith("["):
        _check_host_name(parts.hostname)
    return url


def _check_host_name(name: str) -> str:
    """RFC 1123 section 2.1, with the `_` that services in DNS have, and a dot at the end."""
    bare = name.removesuffix(".")
    if len(bare) <= MAX_HOST_CHARS and _HOST_NAME.fullmatch(bare):
        return name
    hint = ""
    if not bare.isascii():
        with contextlib.suppress(UnicodeError):
            hint = f", write {bare.encode('idna').decode('ascii')!r}"
    raise ValueError(
        f"{name!r} is no host name: expected labels of 1 to 63 letters, digits and hyphens, "
        f"separated by single dots{hint}"
    )


def _check_issuer(url: str) -> str:
    parts = _split(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("expected an http or https URL without query and fragment (RFC 8414 2)")
    return url


def _check_audience(uri: str) -> str:
    if not _ABSOLUTE_URI.fullmatch(uri):
        raise ValueError("expected an absolute URI without a fragment (RFC 8707 2)")
    return uri


def _check_header_name(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError("expected the name of a header field such as Client-Cert")
    return name


def _check_credential_field(name: str) -> str:
    if not _CREDENTIAL_FIELD.fullmatch(name):
        raise ValueError("expected the name of a field or parameter such as client_id")
    return name


def _check_regex(pattern: str) -> str:
    compile_pattern(pattern)
    return pattern


def _check_media_type(kind: str) -> str:
    if not _MEDIA_TYPE.fullmatch(kind):
        raise ValueError("expected a lower-case media type such as application/json")
    return kind


def _check_origin(origin: str) -> str:
    if origin != "*" and not _ORIGIN.fullmatch(origin):
        raise ValueError(
            "expected `*` or an origin without a path, such as https://app.example, "
            "https://*.example.com or http://localhost:3000"
        )
    return origin


def _check_split_by(by: str) -> str:
    kind, mark, name = by.partition(":")
    if by not in {"random", "client", "source"} and not (
        kind == "header" and mark and _HEADER_NAME.fullmatch(name)
    ):
        raise ValueError("expected random, client, source or header:NAME")
    return by


def _check_rewritten_host(host: str) -> str:
    if not _AUTHORITY.fullmatch(host):
        raise ValueError("expected preserve, upstream, or a host name, with a port if need be")
    return host


def _check_request_value(text: str) -> str:
    parse_template(text, IN_REQUEST_HEADERS)
    return text


def _check_response_value(text: str) -> str:
    parse_template(text, IN_RESPONSE_HEADERS)
    return text


def _check_redirect(text: str) -> str:
    parse_template(text, IN_REDIRECTS)
    if not _REDIRECT.match(text) or " " in text:
        raise ValueError("expected a URL or a path, such as https://{host}{uri} or /new{path}")
    return text


def _check_web_url(url: str) -> str:
    parts = _split(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise ValueError("expected an http or https URL without a user")
    return url


def _check_url_prefix(url: str) -> str:
    parts = _split(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not url.endswith("/"):
        raise ValueError("expected an http or https URL that ends with a slash")
    return url


def _check_store(url: str) -> str:
    parse_store_url(url)
    return url


def _check_shared_store(url: str) -> str:
    if not isinstance(parse_store_url(url), RedisUrl | PostgresUrl):
        raise ValueError("expected redis://HOST:PORT/DB or postgresql://HOST:PORT/DATABASE")
    return url


def _without_password(url: str) -> str:
    return str(parse_store_url(url))


def _as_bool(value: Any) -> Any:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, Filled) else value


def _check_secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not text:
        raise ValueError("must not be empty")
    if text != text.strip() or text.startswith("\ufeff"):
        raise ValueError(
            "must not begin or end with a blank, a line break or a byte order mark: no request "
            "could show it"
        )
    if _CONTROLS.search(text):
        raise ValueError("must not hold a control character or a line break")
    if _UNFILLED.fullmatch(text):
        raise ValueError("looks like a variable that was not filled in, expected ${NAME}")
    return secret


def _check_uri_scheme(scheme: str) -> str:
    if not _URI_SCHEME.fullmatch(scheme):
        raise ValueError("expected the scheme of a URI in lower case, without `:`, such as cursor")
    if scheme in _UNSAFE_SCHEMES:
        raise ValueError(f"{scheme} is no scheme of an application")
    return scheme


def _check_listen_host(host: str) -> str:
    if not host:
        raise ValueError(
            "must not be empty: 0.0.0.0 is all IPv4 addresses, `::` all IPv6 addresses"
        )
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not _HOST_NAME.fullmatch(host) or len(host) > MAX_HOST_CHARS:
            raise ValueError(
                "expected an IP address or a host name, without port, brackets and blanks"
            ) from None
    return host


def _read_listen_port(port: Any) -> Any:
    if port is None:
        raise ValueError("expected a port, or `off` for none")
    return None if port == "off" else port


def _check_claim(path: str) -> str:
    parse_claim_path(path)
    return path


def _check_file_name(path: str) -> str:
    if _CONTROLS.search(path):
        raise ValueError("must not hold a control character")
    return path


def _shown_as(pattern: str) -> WithJsonSchema:
    """Have an editor mark what can't be right. The validator knows more, and explains itself."""
    return WithJsonSchema({"type": "string", "pattern": pattern})


MediaType = Annotated[
    str, AfterValidator(_check_media_type), _shown_as(r"^[a-z0-9-]+/[a-z0-9.+-]+$")
]
Origin = Annotated[
    str, AfterValidator(_check_origin), _shown_as(r"^(\*|[a-z][a-z0-9+.-]*://[^/]+)$")
]
SplitBy = Annotated[
    str, AfterValidator(_check_split_by), _shown_as(r"^(random|client|source|header:.+)$")
]
Scope = Annotated[str, AfterValidator(_check_scope), _shown_as(r"^[!#-\[\]-~]+$")]
UpgradeName = Annotated[
    str, AfterValidator(_check_upgrade), _shown_as(r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$")
]
Method = Annotated[str, AfterValidator(_check_method), _shown_as(r"^[A-Z][A-Z0-9_-]*$")]
Host = Annotated[
    str,
    AfterValidator(_check_host),
    _shown_as(r"^((\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])$"),
]
Network = Annotated[
    str, AfterValidator(_check_network), _shown_as(r"^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$")
]
Proxy = Annotated[
    str, AfterValidator(_check_proxy), _shown_as(r"^(unix|[0-9A-Fa-f.:]+(/[0-9]{1,3})?)$")
]
FileMode = Annotated[str, BeforeValidator(_check_mode), WithJsonSchema(
    {"type": "string", "pattern": "^0?[0-7]{3}$"}
)]  # fmt: skip
TargetUrl = Annotated[
    str, AfterValidator(_check_target), _shown_as(r"^(https?://[^/?#@\s]+|unix:///.+)$")
]
IssuerUrl = Annotated[str, AfterValidator(_check_issuer), _shown_as(r"^https?://[^/?#\s][^?#\s]*$")]
Audience = Annotated[
    str, AfterValidator(_check_audience), _shown_as(r"^[A-Za-z][A-Za-z0-9+.-]*:[^#\s]+$")
]
HeaderName = Annotated[
    str, AfterValidator(_check_header_name), _shown_as(r"^[A-Za-z][A-Za-z0-9-]*$")
]
CredentialField = Annotated[
    str, AfterValidator(_check_credential_field), _shown_as(r"^[A-Za-z][A-Za-z0-9_-]*$")
]
WebUrl = Annotated[str, AfterValidator(_check_web_url), _shown_as(r"^https?://[^/@\s][^\s]*$")]
SignatureAlgorithm = Literal[
    "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
    "PS256", "PS384", "PS512", "RS256", "RS384", "RS512",
]  # fmt: skip
GrantType = Literal[
    "client_credentials", "authorization_code", "refresh_token",
    "urn:ietf:params:oauth:grant-type:token-exchange",
    "urn:ietf:params:oauth:grant-type:jwt-bearer",
]  # fmt: skip
"""What a client may be registered for."""
RewrittenHost = Annotated[str, AfterValidator(_check_rewritten_host)]
ClaimName = Annotated[str, AfterValidator(_check_claim), WithJsonSchema(
    {"type": "string", "minLength": 1, "maxLength": MAX_CHARS}
)]  # fmt: skip
Regex = Annotated[str, AfterValidator(_check_regex)]
RequestValue = Annotated[str, AfterValidator(_check_request_value)]
ResponseValue = Annotated[str, AfterValidator(_check_response_value)]
RedirectTo = Annotated[str, AfterValidator(_check_redirect)]
UrlPrefix = Annotated[
    str, AfterValidator(_check_url_prefix), _shown_as(r"^https?://[^/\s][^\s]*/$")
]
UriScheme = Annotated[str, AfterValidator(_check_uri_scheme), _shown_as(r"^[a-z][a-z0-9+.-]*$")]
StoreUrl = Annotated[
    str,
    AfterValidator(_check_store),
    PlainSerializer(_without_password, when_used="json"),
    _shown_as(r"^(none|(sqlite:///|rediss?(\+sentinel|\+cluster)?://|postgres(ql)?://)[^\s]+)$"),
]
SharedStoreUrl = Annotated[
    str,
    AfterValidator(_check_shared_store),
    PlainSerializer(_without_password, when_used="json"),
    _shown_as(r"^(rediss?(\+sentinel|\+cluster)?://|postgres(ql)?://)[^\s]+$"),
]
"""Of a server that several hosts reach."""
Text = Annotated[str, Field(min_length=1), AfterValidator(_check_text)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
HostName = Annotated[str, AfterValidator(_check_host_name)]
ListenHost = Annotated[str, AfterValidator(_check_listen_host)]
Bool = Annotated[bool, BeforeValidator(_as_bool)]
Port = Annotated[Int, Field(ge=0, le=MAX_PORT)]
ListenPort = Annotated[Port | None, BeforeValidator(_read_listen_port), WithJsonSchema(
    {"anyOf": [{"type": "integer", "minimum": 0, "maximum": MAX_PORT}, {"const": "off"}]}
)]  # fmt: skip
"""None where nothing listens on TCP."""
Secret = Annotated[SecretStr, AfterValidator(_check_secret)]
Path = Annotated[str, Field(pattern=r"^/")]


class IsPath:
    """Marks text that names a file: a relative one is relative to the configuration file."""


class IsFile(IsPath):
    """Marks text that names a file which is read when it is activated, as certificates are:
    when its contents change, the configuration is reloaded."""


FileName = Annotated[str, IsPath(), Field(min_length=1), AfterValidator(_check_file_name)]
File = Annotated[str, IsFile(), Field(min_length=1), AfterValidator(_check_file_name)]


class Section(BaseModel):
    """A mapping whose keys are all known."""

    # Compiled as a part of the whole, or when it is read by itself: not each with its class.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


DATACLASSES: list[type[Any]] = []
"""The dataclasses that sections are read into."""


def read_into(*kinds: type[Any]) -> None:
    """Have sections read into dataclasses of the packages below: a field is a key, without its
    unit, and the text below it is the description."""
    for kind in kinds:
        # Not strict as a whole, which would take nothing but instances; its numbers are.
        kind.__pydantic_config__ = ConfigDict(
            extra="forbid", strict=False, alias_generator=key_of, defer_build=True
        )
    DATACLASSES.extend(kinds)


def key_of(field: str) -> str:
    """Return the name of such a dataclass's field in the file."""
    return field.removesuffix("_s").removesuffix("_bytes")


def fields_of(kind: Any) -> dict[str, tuple[str, Any]]:
    """The keys of a section, each with its attribute and its type; none of what is no section."""
    if not isinstance(kind, type):
        return {}
    if issubclass(kind, BaseModel):
        return {name: (name, info.annotation) for name, info in kind.model_fields.items()}
    if not is_dataclass(kind) or not hasattr(kind, "__pydantic_config__"):
        return {}
    types = get_type_hints(kind)
    return {key_of(field.name): (field.name, types[field.name]) for field in fields(kind)}
