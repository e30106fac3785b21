"""Lines of header fields that are kept, and those that are not."""

from __future__ import annotations

from gateway.http.fields import Field, KnownLines, never_keep


class Lines(KnownLines):
    """Keeps each line as it is."""

    def classify(self, lower: bytes, name: bytes, value: bytes) -> Field:
        return lower, value


def test_line_of_a_field_that_the_configuration_names_for_credentials_is_not_kept() -> None:
    lines = Lines()
    line = b"X-Tenant-Key-Of-This-Test: a credential"
    assert lines[line] == (b"x-tenant-key-of-this-test", b"a credential")
    assert line in lines
    lines.clear()
    never_keep(b"x-tenant-key-of-this-test")
    assert lines[line] == (b"x-tenant-key-of-this-test", b"a credential")
    assert line not in lines


def test_lines_of_a_websocket_handshake_are_not_kept() -> None:
    """They never come again, and would push out those that do."""
    lines = Lines()
    for name in (b"Sec-WebSocket-Key", b"Sec-WebSocket-Accept"):
        assert lines[name + b": dGhlIHNhbXBsZSBub25jZQ=="][0] == name.lower()
    assert lines[b"Sec-WebSocket-Version: 13"]
    assert list(lines) == [b"Sec-WebSocket-Version: 13"]
