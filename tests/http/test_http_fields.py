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
