"""Lines of fields as HTTP/2 writes them: names in lower case, and values (RFC 9113 section 8.2)."""

from __future__ import annotations

from gateway.codec import LineLister
from gateway.http.fields import Field, KnownLines
from gateway.http.h2 import Fields


class FieldLister(KnownLines):
    """Lists the fields of a head that HTTP/1 would write as lines."""

    def __init__(self, dropped: frozenset[bytes] = frozenset()) -> None:
        """`dropped` are names, in lower case, of fields that are left out."""
        super().__init__()
        self.dropped = dropped
        self._codec = LineLister(dropped)

    def classify(self, lower: bytes, name: bytes, value: bytes) -> Field:
        return (b"", b"") if lower in self.dropped else (lower, value)

    def list_fields(self, first: Fields, lines: bytes, last: Fields = ()) -> Fields:
        """Return the fields of `lines`, each with its line end, between `first` and `last`."""
        listed = self._codec.fields(first, lines, last)
        return self.parse(first, lines, last) if listed is None else listed

    def parse(self, first: Fields, lines: bytes, last: Fields = ()) -> Fields:
        """List in Python: the definition of what `list_fields` returns."""
        fields = [*first]
        for line in lines.split(b"\r\n"):
            if line:
                field = self[line]
                if field[0]:
                    fields.append(field)
        return (*fields, *last)
