# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, binding=False, embedsignature=False
"""The native codec: reads heads of messages and writes what every request has, in C.

Each function returns exactly what its Python reader returns, or None: "ask the Python reader". It
never rejects, so each error has one place. What is seldom or odd is left to Python: the Python
readers stay the definition, and tests compare both (tests/codec).

Every read is bounded by the end of its input, every write goes through `Writer`, which is checked.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.dict cimport PyDict_Check, PyDict_GetItemWithError, PyDict_SetItem
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_Check, PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

import os
from time import gmtime, strftime

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    void* PyUnicode_DATA(object text)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef extern from "scan.h":
    const char* codec_skip_value(const char* at, const char* end) noexcept nogil
    bint codec_contains(const char* text, Py_ssize_t n, const char* part, Py_ssize_t m) noexcept nogil

cdef extern from "sha256.h":
    void codec_sha256(const uint8_t* data, size_t size, uint8_t* out, int portable) noexcept nogil
    int codec_has_sha_instructions() noexcept nogil

# Kinds of bytes, as the patterns in `http/fields.py`, `http/target.py` and `oauth/bearer.py` have them.
cdef enum:
    TOKEN = 1
    UPPER = 2  # of a token, but for letters in lower case
    SEGMENT = 4
    QUERY = 8
    B68 = 16
    HEX = 32
    HOST = 64
    DIGIT = 128
    PLAIN = 256  # as it stands in a string of JSON

cdef uint16_t KIND[256]
cdef uint8_t LOWER[256]
cdef uint8_t CGI[256]


cdef void _fill_tables():
    cdef int c
    lower = frozenset(b"abcdefghijklmnopqrstuvwxyz")
    digits = frozenset(b"0123456789")
    alnum = lower | digits | frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    token = alnum | frozenset(b"!#$%&'*+-.^_`|~")
    segment = alnum | frozenset(b"_~!$&'()*+,=:@-.")
    for c in range(256):
        LOWER[c] = c + 32 if 65 <= c <= 90 else c
        CGI[c] = LOWER[c] if c in alnum else 45
        KIND[c] = (
            (TOKEN if c in token else 0)
            | (UPPER if c in token and c not in lower else 0)
            | (SEGMENT if c in segment else 0)
            | (QUERY if 33 <= c <= 126 and c != 35 else 0)
            | (B68 if c in alnum or c in b"-._~+/" else 0)
            | (HEX if c in digits or c in b"abcdef" else 0)
            | (HOST if c in alnum or c in b"._-" else 0)
            | (DIGIT if c in digits else 0)
            | (PLAIN if 32 <= c <= 126 and c != 34 and c != 92 else 0)
        )


_fill_tables()


cdef inline bint _is(const char* text, Py_ssize_t n, const char* word, Py_ssize_t m) noexcept nogil:
    """Whether a text is a word in lower case, whatever its own case."""
    cdef Py_ssize_t i
    if n != m:
        return False
    for i in range(n):
        if LOWER[<uint8_t>text[i]] != <uint8_t>word[i]:
            return False
    return True


cdef object _ascii(const char* at, Py_ssize_t n):
    if n <= 0:
        return ""
    text = PyUnicode_New(n, 127)
    memcpy(PyUnicode_DATA(text), at, n)
    return text


# The writer. No byte is written anywhere but through it, or into an object made to measure.

cdef struct Writer:
    char* start
    char* at
    char* end
    char* heap  # NULL as long as `small` is large enough
    char small[2048]


cdef inline void writer_open(Writer* out) noexcept:
    out.heap = NULL
    out.start = out.at = out.small
    out.end = out.small + sizeof(out.small)


cdef inline void writer_close(Writer* out) noexcept:
    if out.heap != NULL:
        PyMem_Free(out.heap)
        out.heap = NULL


cdef int writer_grow(Writer* out, Py_ssize_t n) except -1:
    cdef Py_ssize_t used = out.at - out.start
    cdef Py_ssize_t size = 2 * (used + n)
    cdef char* made = <char*>PyMem_Malloc(size)
    if made == NULL:
        raise MemoryError
    memcpy(made, out.start, used)
    writer_close(out)
    out.heap = out.start = made
    out.at = made + used
    out.end = made + size
    return 0


cdef inline int put(Writer* out, const char* text, Py_ssize_t n) except -1:
    if n > out.end - out.at:
        writer_grow(out, n)
    memcpy(out.at, text, n)
    out.at += n
    return 0


cdef inline int put_int(Writer* out, uint64_t value) except -1:
    cdef char digits[20]
    cdef int n = 20
    while True:
        n -= 1
        digits[n] = <char>(48 + value % 10)
        value //= 10
        if not value:
            break
    return put(out, digits + n, 20 - n)


# Names of fields that are looked at.

DEF SLOTS = 256
cdef enum:
    READ = 1  # its values are kept by name
    DROP = 2
    ASK = 3
    COOKIE = 4
    CONTENT_TYPE = 5
    DATE = 6
    # Those whose values are kept, and read here:
    HOST_NAME = 16
    CONNECTION = 17
    LENGTH = 18
    CODING = 19
    KEEP_ALIVE = 20

cdef struct Name:
    const char* text
    Py_ssize_t length
    int kind
    PyObject* key


cdef class _Names:
    """Names by what becomes of their fields; look-ups ignore case and, as CGI-like environments
    do, which character stands between words."""

    cdef Name slots[SLOTS]
    cdef list alive

    def __cinit__(self):
        cdef int i
        self.alive = []
        for i in range(SLOTS):
            self.slots[i].length = 0

    cdef int add(self, bytes name, int kind) except -1:
        cdef const char* text = PyBytes_AS_STRING(name)
        cdef Py_ssize_t n = PyBytes_GET_SIZE(name)
        cdef Py_ssize_t i
        cdef Name* slot
        if n == 0 or len(self.alive) >= SLOTS // 2:
            raise ValueError("too many names")
        for i in range(n):
            if CGI[<uint8_t>text[i]] != <uint8_t>text[i]:
                raise ValueError(name)
        slot = self._slot(text, n)
        if not slot.length:
            self.alive.append(name)
            slot.text = text
            slot.length = n
            slot.key = <PyObject*>name
        slot.kind = kind
        return 0

    cdef Name* _slot(self, const char* name, Py_ssize_t n) noexcept nogil:
        """The slot that has the name, or an empty one."""
        cdef uint32_t at = (
            <uint32_t>n * 7u + CGI[<uint8_t>name[0]] * 3u + CGI[<uint8_t>name[n - 1]] * 5u
            + CGI[<uint8_t>name[n >> 1]] * 11u
        ) & (SLOTS - 1)
        cdef Py_ssize_t i
        cdef const char* text
        while self.slots[at].length:
            if self.slots[at].length == n:
                text = self.slots[at].text
                i = 0
                while i < n and CGI[<uint8_t>name[i]] == <uint8_t>text[i]:
                    i += 1
                if i == n:
                    break
            at = (at + 1) & (SLOTS - 1)
        return &self.slots[at]


# Flags of a record.
DEF CLOSES = 1
DEF KEEPS_ALIVE = 2
DEF CHUNKED = 4
DEF GRPC = 8
DEF HAS_DATE = 16
DEF TE = 32

cdef struct Head:
    # What was found out about a head while its fields were read.
    int flags
    int64_t length  # -1 without Content-Length
    int lengths
    int codings
    int hosts
    const char* host
    Py_ssize_t host_size


cdef inline void head_open(Head* head) noexcept:
    head.flags = head.lengths = head.codings = head.hosts = 0
    head.length = -1
    head.host = NULL
    head.host_size = 0


cdef bint _read_options(Head* head, const char* at, const char* end, bint takes_upgrade) noexcept nogil:
    """Connection (RFC 9110 section 7.6.1); False where a member is not one of the usual."""
    cdef const char* member
    cdef const char* tail
    while True:
        while at < end and (at[0] == c' ' or at[0] == c'\t'):
            at += 1
        member = at
        while at < end and at[0] != c',':
            at += 1
        tail = at
        while tail > member and ((tail - 1)[0] == c' ' or (tail - 1)[0] == c'\t'):
            tail -= 1
        if _is(member, tail - member, "keep-alive", 10):
            head.flags |= KEEPS_ALIVE
        elif _is(member, tail - member, "close", 5):
            head.flags |= CLOSES
        elif _is(member, tail - member, "upgrade", 7):
            if not takes_upgrade:
                return False
        elif tail - member and not _is(member, tail - member, "te", 2):
            return False
        if at >= end:
            return True
        at += 1


cdef bint _read_length(Head* head, const char* at, const char* end) noexcept nogil:
    """A single Content-Length of up to 18 digits."""
    cdef int64_t value = 0
    head.lengths += 1
    if head.lengths > 1 or end - at < 1 or end - at > 18:
        return False
    while at < end:
        if not KIND[<uint8_t>at[0]] & DIGIT:
            return False
        value = value * 10 + (at[0] - c'0')
        at += 1
    head.length = value
    return True


cdef inline bint _is_grpc(const char* value, Py_ssize_t n) noexcept nogil:
    if n < 16 or memcmp(value, "application/grpc", 16) != 0:
        return False
    return n == 16 or value[16] == c'+' or value[16] == c';' or value[16] == c' '


cdef int _keep(dict fields, Name* name, const char* value, Py_ssize_t n) except -1:
    cdef object key = <object>name.key
    cdef PyObject* found = PyDict_GetItemWithError(fields, key)
    if found == NULL:
        fields[key] = [PyBytes_FromStringAndSize(value, n)]
    else:
        (<list>found).append(PyBytes_FromStringAndSize(value, n))
    return 0


cdef class _FieldReader:
    """What the readers of requests and responses share: lines of fields."""

    cdef _Names names
    cdef bint is_request

    cdef int take(
        self, Head* head, dict fields, const char* name, Py_ssize_t n, const char* value, Py_ssize_t m
    ) except -1:
        """Take a field: returns 1 if it passes, 0 if it does not, 2 for "ask"."""
        cdef Name* known = self.names._slot(name, n)
        cdef Py_ssize_t i
        cdef int kind
        if not known.length:
            return 1
        for i in range(n):
            if LOWER[<uint8_t>name[i]] != <uint8_t>known.text[i]:
                # Another spelling of a name that is looked at.
                return 2 if self.is_request else 1
        kind = known.kind
        if kind == COOKIE:
            return 2 if codec_contains(value, m, "gateway_", 8) else 1
        if kind == CONTENT_TYPE:
            if _is_grpc(value, m):
                head.flags |= GRPC
            return 1
        if kind == DATE:
            head.flags |= HAS_DATE
            return 1
        if kind == DROP:
            return 0
        if kind == ASK:
            return 2
        if kind == CONNECTION:
            if not _read_options(head, value, value + m, not self.is_request):
                return 2
        elif kind == LENGTH:
            if not _read_length(head, value, value + m):
                return 2
        elif kind == CODING:
            head.codings += 1
            if head.codings > 1 or not _is(value, m, "chunked", 7):
                return 2
        elif kind == HOST_NAME:
            head.hosts += 1
            head.host = value
            head.host_size = m
        if self.is_request or kind == KEEP_ALIVE:
            _keep(fields, known, value, m)
        return 0

    cdef int read_lines(
        self, Head* head, dict fields, Writer* out, const char* at, const char* end,
        Py_ssize_t max_fields, const char** block_end,
    ) except -1:
        """Read lines from `at` to `end`, whose last has no line end; 2 for "ask", else 0.

        With `block_end`, they end at the first empty line instead, which has to be there: it is set
        to the end of the line before, or to `at` where there is none."""
        cdef const char* name
        cdef const char* value
        cdef const char* name_end
        cdef const char* tail
        cdef const char* line_end
        cdef Py_ssize_t count = 0
        cdef int verdict
        if block_end != NULL:
            block_end[0] = at
            if end - at >= 2 and at[0] == c'\r' and at[1] == c'\n':
                return 0
        elif at == end:
            return 0
        while True:
            count += 1
            if count > max_fields:
                return 2
            name = at
            while at < end and KIND[<uint8_t>at[0]] & TOKEN:
                at += 1
            name_end = at
            if at == name or at >= end or at[0] != c':':
                return 2
            at += 1
            while at < end and (at[0] == c' ' or at[0] == c'\t'):
                at += 1
            value = at
            at = codec_skip_value(at, end)
            line_end = tail = at
            if at < end and (end - at < 2 or at[0] != c'\r' or at[1] != c'\n'):
                return 2
            while tail > value and ((tail - 1)[0] == c' ' or (tail - 1)[0] == c'\t'):
                tail -= 1
            verdict = self.take(head, fields, name, name_end - name, value, tail - value)
            if verdict == 2:
                return 2
            if verdict == 1:
                if value - name_end == 2 and name_end[1] == c' ' and tail == line_end and at < end:
                    put(out, name, line_end + 2 - name)
                else:
                    put(out, name, name_end - name)
                    put(out, ": ", 2)
                    put(out, value, tail - value)
                    put(out, "\r\n", 2)
            if block_end == NULL:
                if at >= end:
                    return 0
                at += 2  # where a line must stand
                continue
            if end - at < 4:
                return 2
            at += 2
            if at[0] == c'\r' and at[1] == c'\n':
                block_end[0] = line_end
                return 0


cdef struct Text:
    const char* at
    Py_ssize_t n


cdef inline bint _take_field(object field, Text* name, Text* value):
    """Take a field of HTTP/2 apart; False for what is none, or has a value that does not stand in a
    line as it is."""
    cdef PyObject* one
    cdef PyObject* other
    cdef const char* end
    if not PyTuple_Check(field) or PyTuple_GET_SIZE(field) != 2:
        return False
    one, other = <PyObject*>PyTuple_GET_ITEM(field, 0), <PyObject*>PyTuple_GET_ITEM(field, 1)
    if not PyBytes_CheckExact(<object>one) or not PyBytes_CheckExact(<object>other):
        return False
    name.at, name.n = PyBytes_AS_STRING(<object>one), PyBytes_GET_SIZE(<object>one)
    value.at, value.n = PyBytes_AS_STRING(<object>other), PyBytes_GET_SIZE(<object>other)
    end = value.at + value.n
    if name.n == 0 or codec_skip_value(value.at, end) != end:
        return False
    if value.n == 0:
        return True
    return not (_is_blank(value.at[0]) or _is_blank((end - 1)[0]))


cdef inline bint _is_blank(char c) noexcept nogil:
    return c == c' ' or c == c'\t'


cdef inline bint _is_lower_name(Text* name) noexcept nogil:
    """Whether it is a token in lower case (RFC 9113 section 8.2.1)."""
    cdef Py_ssize_t i
    for i in range(name.n):
        if not KIND[<uint8_t>name.at[i]] & TOKEN or LOWER[<uint8_t>name.at[i]] != <uint8_t>name.at[i]:
            return False
    return True


cdef inline bint _equals(Text* text, const char* word, Py_ssize_t n) noexcept nogil:
    return text.n == n and memcmp(text.at, word, n) == 0


cdef inline bint _is_known(Writer* out, const char* ending, Py_ssize_t n, object known) noexcept:
    """Whether what was written is known, but for the ending that this has."""
    cdef Py_ssize_t size = out.at - out.start
    if known is None or PyBytes_GET_SIZE(known) != size + n:
        return False
    if memcmp(out.start, PyBytes_AS_STRING(known), size) != 0:
        return False
    return memcmp(PyBytes_AS_STRING(known) + size, ending, n) == 0


cdef tuple _METHODS = ("GET", "POST", "PUT", "HEAD", "PATCH", "DELETE", "OPTIONS")


cdef object _read_method(const char* at, Py_ssize_t n):
    cdef Py_ssize_t i
    for known in _METHODS:
        if PyUnicode_GET_LENGTH(known) == n and memcmp(at, PyUnicode_DATA(known), n) == 0:
            return known
    for i in range(n):
        if not KIND[<uint8_t>at[i]] & UPPER:
            return None
    if n == 0 or _is(at, n, "connect", 7):
        return None
    return _ascii(at, n)


cdef tuple _read_line(const char* start, const char* end):
    """A request line whose target is canonical as it stands; else None."""
    cdef const char* at = start
    cdef const char* path
    cdef const char* query
    cdef const char* target_end
    cdef object method
    cdef bytes onward
    cdef char* out
    cdef Py_ssize_t n = end - start
    while at < end and at[0] != c' ':
        at += 1
    method = _read_method(start, at - start)
    if method is None or end - at < 11:  # ` / HTTP/1.1`
        return None
    at += 1
    path = at
    if at[0] != c'/':
        return None
    # `/`, or segments that are not empty and do not begin with a dot, and perhaps a last slash.
    while at < end and at[0] == c'/':
        at += 1
        if at >= end or not KIND[<uint8_t>at[0]] & SEGMENT:
            break
        if at[0] == c'.':
            return None
        at += 1
        while at < end and KIND[<uint8_t>at[0]] & SEGMENT:
            at += 1
    query = at
    if at < end and at[0] == c'?':
        at += 1
        while at < end and KIND[<uint8_t>at[0]] & QUERY:
            at += 1
    target_end = at
    if end - at != 9 or memcmp(at, " HTTP/1.", 8) != 0 or not KIND[<uint8_t>at[8]] & DIGIT:
        return None
    onward = PyBytes_FromStringAndSize(NULL, n + 2)
    out = PyBytes_AS_STRING(onward)
    memcpy(out, start, n - 1)
    memcpy(out + n - 1, "1\r\n", 3)
    return (
        method, _ascii(path, query - path), _ascii(query, target_end - query), at[8] == c'0', onward
    )


cdef const char* _find_line_end(const char* at, const char* end) noexcept nogil:
    """The first CRLF, or the end."""
    while at < end:
        at = <const char*>memchr(at, c'\r', end - at)
        if at == NULL:
            return end
        if end - at >= 2 and at[1] == c'\n':
            return at
        at += 1
    return end


cdef inline bint _ends_block(const char* at, const char* end, bytes known):
    """Whether the known lines are there, and behind them an empty one."""
    cdef Py_ssize_t n = PyBytes_GET_SIZE(known)
    if n == 0:
        return end - at >= 2 and at[0] == c'\r' and at[1] == c'\n'
    if end - at < n + 4 or memcmp(at, PyBytes_AS_STRING(known), n) != 0:
        return False
    return memcmp(at + n, "\r\n\r\n", 4) == 0


cdef object _read_host(const char* at, Py_ssize_t n):
    """Host as it came and as routes name it; None for an address in brackets, and what is no
    name."""
    cdef Py_ssize_t length = 0
    cdef Py_ssize_t i
    cdef object name
    cdef char* out
    if n == 0:
        return b"", ""
    while length < n and KIND[<uint8_t>at[length]] & HOST:
        length += 1
    if length == 0:
        return None
    if length < n:
        if at[length] != c':' or n - length > 6:
            return None
        for i in range(length + 1, n):
            if not KIND[<uint8_t>at[i]] & DIGIT:
                return None
    while length and at[length - 1] == c'.':
        length -= 1
    if length == 0:
        return PyBytes_FromStringAndSize(at, n), ""
    name = PyUnicode_New(length, 127)
    out = <char*>PyUnicode_DATA(name)
    for i in range(length):
        out[i] = <char>LOWER[<uint8_t>at[i]]
    return PyBytes_FromStringAndSize(at, n), name


cdef inline int _put_line(Writer* out, const char* name, Py_ssize_t n, Text* value) except -1:
    """Write a line behind those that are there, without its end."""
    if out.at != out.start:
        put(out, "\r\n", 2)
    put(out, name, n)
    put(out, ": ", 2)
    return put(out, value.at, value.n)


cdef class RequestCodec(_FieldReader):
    """Reads heads of requests, as `http/request_head.py` does."""

    def __cinit__(self, special):
        """`special` are the names of fields that are looked at."""
        self.names = _Names()
        self.is_request = True
        for name in special:
            self.names.add(name, READ)
        for name, kind in (
            (b"host", HOST_NAME), (b"connection", CONNECTION), (b"content-length", LENGTH),
            (b"transfer-encoding", CODING), (b"expect", ASK), (b"max-forwards", ASK),
        ):
            if name not in special:
                raise ValueError(name)
            self.names.add(name, kind)
        for name, kind in ((b"cookie", COOKIE), (b"content-type", CONTENT_TYPE)):
            if name in special:
                raise ValueError(name)
            self.names.add(name, kind)

    def read(
        self, bytes data not None, bytes known_line not None, bytes known_block not None,
        Py_ssize_t max_fields, Py_ssize_t max_bytes,
    ):
        """Read a head at the beginning of `data`; see `native.pyi`."""
        cdef const char* start = PyBytes_AS_STRING(data)
        cdef const char* end = start + PyBytes_GET_SIZE(data)
        cdef const char* line_end
        cdef const char* block
        cdef const char* block_end
        cdef object line = None
        cdef object fields = None
        cdef Py_ssize_t n = PyBytes_GET_SIZE(known_line)
        if 0 < n <= end - start and memcmp(start, PyBytes_AS_STRING(known_line), n) == 0:
            block = start + n
        else:
            line_end = _find_line_end(start, end)
            if line_end == end:
                return None
            block = line_end + 2
            line = _read_line(start, line_end)
            if line is None:
                return None
        n = PyBytes_GET_SIZE(known_block)
        if _ends_block(block, end, known_block):
            block_end = block + n
        else:
            fields = self._read_block(block, end, max_fields, &block_end)
            if fields is None:
                return None
        # The end of the last line, which is the request line where no field follows.
        n = block_end - start - (2 if block_end == block else 0)
        if n > max_bytes:
            return None
        return line, fields, n + 4

    def read_h2(
        self, fields, bytes known_line not None, bytes known_block, Py_ssize_t max_fields,
        Py_ssize_t max_bytes,
    ):
        """Read the fields of a request of HTTP/2; see `native.pyi`."""
        cdef Writer block
        cdef Writer line
        if not PyTuple_CheckExact(fields):
            return None
        writer_open(&block)
        writer_open(&line)
        try:
            if not self._sort(<tuple>fields, &block, &line, max_fields, max_bytes):
                return None
            first = record = None
            if not _is_known(&line, "\r\n", 2, known_line):
                first = _read_line(line.start, line.at)
                if first is None:
                    return None
            if not _is_known(&block, "", 0, known_block):
                record = self._read_block(
                    block.start, block.at, PyTuple_GET_SIZE(fields) + 1, NULL
                )
                if record is None:
                    return None
            return first, record
        finally:
            writer_close(&block)
            writer_close(&line)

    cdef bint _sort(
        self, tuple fields, Writer* block, Writer* line, Py_ssize_t max_fields, Py_ssize_t max_bytes
    ) except -1:
        """Write the fields as lines, the last without its end, and the request line that the
        pseudo-fields make; False for "ask"."""
        cdef Text name
        cdef Text value
        cdef Text method
        cdef Text path
        cdef Text scheme
        cdef Text authority
        cdef Text host
        cdef Text* pseudo
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t count = 0
        cdef int crumbs = 0
        cdef Py_ssize_t i
        method.at = path.at = scheme.at = authority.at = host.at = NULL
        for field in fields:
            if not _take_field(field, &name, &value):
                return False
            size += name.n + value.n + 4
            if name.at[0] == c':':
                if count:
                    return False
                if _equals(&name, ":method", 7):
                    pseudo = &method
                elif _equals(&name, ":path", 5):
                    pseudo = &path
                elif _equals(&name, ":scheme", 7):
                    pseudo = &scheme
                elif _equals(&name, ":authority", 10):
                    pseudo = &authority
                else:
                    return False
                if pseudo.at != NULL:
                    return False
                pseudo[0] = value
                continue
            count += 1
            if not _is_lower_name(&name):
                return False
            if _equals(&name, "cookie", 6):
                crumbs += 1
            elif _equals(&name, "host", 4):
                if host.at != NULL:
                    return False
                host = value
            else:
                _put_line(block, name.at, name.n, &value)
        if count > max_fields or size > max_bytes or method.at == NULL or path.at == NULL:
            return False
        if path.n == 0 or path.at[0] != c'/':
            return False
        if scheme.at != NULL and not _equals(&scheme, "http", 4) and not _equals(&scheme, "https", 5):
            return False
        if authority.at != NULL:
            if host.at != NULL:
                if host.n != authority.n:
                    return False
                for i in range(host.n):
                    if LOWER[<uint8_t>host.at[i]] != LOWER[<uint8_t>authority.at[i]]:
                        return False
            host = authority
        if host.at != NULL:
            _put_line(block, "host", 4, &host)
        if crumbs:
            i = 0
            for field in fields:
                _take_field(field, &name, &value)
                if _equals(&name, "cookie", 6):
                    if i == 0:
                        _put_line(block, "cookie", 6, &value)
                    else:
                        put(block, "; ", 2)
                        put(block, value.at, value.n)
                    i += 1
        for i in range(method.n):
            if not KIND[<uint8_t>method.at[i]] & TOKEN:
                return False
        put(line, method.at, method.n)
        put(line, " ", 1)
        put(line, path.at, path.n)
        put(line, " HTTP/1.1", 9)
        return True

    def read_line(self, bytes line not None):
        """Read a request line."""
        cdef const char* start = PyBytes_AS_STRING(line)
        return _read_line(start, start + PyBytes_GET_SIZE(line))

    def read_fields(self, bytes block not None, Py_ssize_t max_fields):
        """Read the lines of fields."""
        cdef const char* start = PyBytes_AS_STRING(block)
        return self._read_block(start, start + PyBytes_GET_SIZE(block), max_fields, NULL)

    cdef object _read_block(
        self, const char* at, const char* end, Py_ssize_t max_fields, const char** block_end
    ):
        cdef Writer out
        cdef Head head
        cdef dict fields = {}
        cdef object host = None
        writer_open(&out)
        head_open(&head)
        try:
            if self.read_lines(&head, fields, &out, at, end, max_fields, block_end):
                return None
            if block_end != NULL:
                end = block_end[0]
            if head.codings:
                if head.lengths:
                    return None
                head.flags |= CHUNKED
            if head.hosts:
                host = _read_host(head.host, head.host_size) if head.hosts == 1 else None
                if host is None:
                    return None
            return (
                PyBytes_FromStringAndSize(at, end - at), fields,
                PyBytes_FromStringAndSize(out.start, out.at - out.start),
                head.flags, head.length if head.length > 0 else 0, host,
            )
        finally:
            writer_close(&out)


cdef class ResponseCodec(_FieldReader):
    """Reads heads of responses, as `http/response_head.py` does."""

    cdef dict phrases

    def __cinit__(self, dropped, asked, phrases):
        """`dropped` and `asked` are names of fields that do not pass, or that Python reads;
        `phrases` are the usual ones by status."""
        self.names = _Names()
        self.is_request = False
        self.phrases = dict(phrases)
        for name in dropped:
            self.names.add(name, DROP)
        for name in asked:
            self.names.add(name, ASK)
        for name, kind in (
            (b"connection", CONNECTION), (b"content-length", LENGTH), (b"keep-alive", KEEP_ALIVE),
            (b"transfer-encoding", CODING), (b"set-cookie", COOKIE), (b"date", DATE),
        ):
            self.names.add(name, kind)

    def read(self, bytes data not None, bytes known not None, Py_ssize_t max_bytes):
        """Read a head at the beginning of `data`; see `native.pyi`."""
        cdef const char* start = PyBytes_AS_STRING(data)
        cdef const char* end = start + PyBytes_GET_SIZE(data)
        cdef const char* head_end
        cdef Py_ssize_t n = PyBytes_GET_SIZE(known)
        cdef object record = None
        if n and _ends_block(start, end, known):
            head_end = start + n
        else:
            record = self._read_head(start, end, &head_end)
            if record is None:
                return None
        n = head_end - start
        if n > max_bytes:
            return None
        return record, n

    def read_h2(self, fields):
        """Read the fields of a response of HTTP/2; see `native.pyi`."""
        cdef Text name
        cdef Text value
        cdef Writer out
        cdef Head found
        cdef dict kept
        cdef int status = 0
        cdef int verdict
        if not PyTuple_CheckExact(fields):
            return None
        kept = {}
        writer_open(&out)
        head_open(&found)
        try:
            for field in <tuple>fields:
                if not _take_field(field, &name, &value):
                    return None
                if _equals(&name, ":status", 7):
                    if status or value.n != 3 or value.at[0] < c'1' or value.at[0] > c'5':
                        return None
                    if not KIND[<uint8_t>value.at[1]] & KIND[<uint8_t>value.at[2]] & DIGIT:
                        return None
                    status = (value.at[0] - c'0') * 100 + (value.at[1] - c'0') * 10
                    status += value.at[2] - c'0'
                    continue
                if not _is_lower_name(&name):
                    return None
                verdict = self.take(&found, kept, name.at, name.n, value.at, value.n)
                if verdict == 2:
                    return None
                if verdict == 1:
                    put(&out, name.at, name.n)
                    put(&out, ": ", 2)
                    put(&out, value.at, value.n)
                    put(&out, "\r\n", 2)
            # Fields of HTTP/1's connections are seldom, and Python's.
            if not status or kept or found.codings or found.flags & (KEEPS_ALIVE | CLOSES):
                return None
            if found.length >= 0 and status >= 200 and status != 204:
                put(&out, "Content-Length: ", 16)
                put_int(&out, <uint64_t>found.length)
                put(&out, "\r\n", 2)
            return (
                status, PyBytes_FromStringAndSize(out.start, out.at - out.start), found.length,
                found.flags & HAS_DATE, None,
            )
        finally:
            writer_close(&out)

    def read_head(self, bytes head not None):
        """Read a head without the empty line that ends it."""
        cdef const char* start = PyBytes_AS_STRING(head)
        return self._read_head(start, start + PyBytes_GET_SIZE(head), NULL)

    cdef object _read_head(self, const char* start, const char* end, const char** head_end):
        cdef const char* at = start
        cdef const char* phrase
        cdef int status
        cdef bint is_http_10
        cdef PyObject* usual
        cdef Writer out
        cdef Head found
        cdef dict fields
        if end - at < 12 or memcmp(at, "HTTP/1.", 7) != 0 or not KIND[<uint8_t>at[7]] & DIGIT:
            return None
        if at[8] != c' ' or at[9] < c'1' or at[9] > c'5':
            return None
        if not KIND[<uint8_t>at[10]] & DIGIT or not KIND[<uint8_t>at[11]] & DIGIT:
            return None
        is_http_10 = at[7] == c'0'
        status = (at[9] - c'0') * 100 + (at[10] - c'0') * 10 + at[11] - c'0'
        if status == 426:
            return None
        at += 12
        if at < end and at[0] == c' ':
            at += 1
            phrase = at
            at = codec_skip_value(at, end)
            if at > phrase:
                usual = PyDict_GetItemWithError(self.phrases, status)
                if usual == NULL or PyBytes_GET_SIZE(<bytes>usual) != at - phrase:
                    return None
                if memcmp(phrase, PyBytes_AS_STRING(<bytes>usual), at - phrase) != 0:
                    return None
        if at < end:
            # Lines behind it: at least one, if only an empty one, which is none of a field.
            if end - at < 3 or at[0] != c'\r' or at[1] != c'\n':
                return None
            at += 2
        elif head_end != NULL:
            return None
        fields = {}
        writer_open(&out)
        head_open(&found)
        try:
            if self.read_lines(&found, fields, &out, at, end, end - at + 1, head_end):
                return None
            if head_end != NULL and head_end[0] == at:
                head_end[0] = at - 2  # no field
            if found.codings:
                if found.lengths or is_http_10:
                    return None
                found.flags |= CHUNKED
            if found.flags & CLOSES or (is_http_10 and not found.flags & KEEPS_ALIVE):
                found.flags &= ~KEEPS_ALIVE
            else:
                found.flags |= KEEPS_ALIVE
            if found.length >= 0 and status >= 200 and status != 204:
                put(&out, "Content-Length: ", 16)
                put_int(&out, <uint64_t>found.length)
                put(&out, "\r\n", 2)
            return (
                status, PyBytes_FromStringAndSize(out.start, out.at - out.start),
                found.length, found.flags & (KEEPS_ALIVE | CHUNKED | HAS_DATE),
                fields.get(b"keep-alive"),
            )
        finally:
            writer_close(&out)


cdef class LineLister:
    """Lists lines of fields as HTTP/2 has them, as `http/h2_fields.py` does."""

    cdef _Names names

    def __cinit__(self, dropped):
        """`dropped` are names of fields that are left out."""
        self.names = _Names()
        for name in dropped:
            self.names.add(name, DROP)

    def fields(self, tuple first not None, bytes lines not None, tuple last not None):
        """List lines, each with its end, between other fields."""
        cdef const char* at = PyBytes_AS_STRING(lines)
        cdef const char* end = at + PyBytes_GET_SIZE(lines)
        cdef const char* name
        cdef const char* tail
        cdef Py_ssize_t n
        cdef list found = list(first)
        cdef object made
        while at < end:
            name = at
            while at < end and KIND[<uint8_t>at[0]] & TOKEN:
                at += 1
            n = at - name
            if n == 0 or at >= end or at[0] != c':':
                return None
            at += 1
            while at < end and _is_blank(at[0]):
                at += 1
            tail = codec_skip_value(at, end)
            if end - tail < 2 or tail[0] != c'\r' or tail[1] != c'\n':
                return None
            if not self._is_dropped(name, n):
                made = _lower(name, n)
                name = tail
                while name > at and _is_blank((name - 1)[0]):
                    name -= 1
                found.append((made, PyBytes_FromStringAndSize(at, name - at)))
            at = tail + 2
        found.extend(last)
        return tuple(found)

    cdef bint _is_dropped(self, const char* name, Py_ssize_t n) noexcept nogil:
        cdef Name* known = self.names._slot(name, n)
        return known.length and _is(name, n, known.text, known.length)


cdef object _lower(const char* at, Py_ssize_t n):
    cdef bytes made = PyBytes_FromStringAndSize(NULL, n)
    cdef char* out = PyBytes_AS_STRING(made)
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = <char>LOWER[<uint8_t>at[i]]
    return made


# Tokens and trace contexts.

def digest_bearer(bytes value not None):
    """The SHA-256 digest of the token in an Authorization value; None for one that is not well-formed
    or not of the scheme Bearer (RFC 6750 section 2.1)."""
    cdef const char* at = PyBytes_AS_STRING(value)
    cdef const char* end = at + PyBytes_GET_SIZE(value)
    cdef const char* token
    cdef bytes digest
    if end - at < 8 or not _is(at, 6, "bearer", 6) or at[6] != c' ':
        return None
    at += 6
    while at < end and at[0] == c' ':
        at += 1
    token = at
    while at < end and KIND[<uint8_t>at[0]] & B68:
        at += 1
    if at == token:
        return None
    while at < end and at[0] == c'=':
        at += 1
    if at != end:
        return None
    digest = PyBytes_FromStringAndSize(NULL, 32)
    codec_sha256(<const uint8_t*>token, end - token, <uint8_t*>PyBytes_AS_STRING(digest), 0)
    return digest


def sha256(bytes data not None, bint portable=False):
    """The SHA-256 digest; `portable` without the instructions of the processor, for tests."""
    cdef bytes digest = PyBytes_FromStringAndSize(NULL, 32)
    codec_sha256(
        <const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data),
        <uint8_t*>PyBytes_AS_STRING(digest), portable,
    )
    return digest


def has_sha_instructions():
    """Whether digests are made by instructions of the processor."""
    return bool(codec_has_sha_instructions())


def is_traceparent(bytes value not None):
    """True for a well-formed traceparent of version 00; None for others (W3C Trace Context
    section 3.2)."""
    cdef const char* at = PyBytes_AS_STRING(value)
    cdef int i
    cdef int trace = 0
    cdef int parent = 0
    if PyBytes_GET_SIZE(value) != 55 or memcmp(at, "00-", 3) != 0:
        return None
    if at[35] != c'-' or at[52] != c'-':
        return None
    for i in range(3, 35):
        if not KIND[<uint8_t>at[i]] & HEX:
            return None
        trace |= at[i] ^ c'0'
    for i in range(36, 52):
        if not KIND[<uint8_t>at[i]] & HEX:
            return None
        parent |= at[i] ^ c'0'
    if trace and parent and KIND[<uint8_t>at[53]] & HEX and KIND[<uint8_t>at[54]] & HEX:
        return True
    return None


# Request ids: unique, not secret. xoshiro256++, seeded by the system, again in each forked process.

cdef uint64_t _state[4]


def seed_ids():
    """Seed the generator of request ids, as a forked process has to."""
    cdef bytes seed = os.urandom(32)
    memcpy(_state, PyBytes_AS_STRING(seed), 32)
    _state[0] |= 1  # all zeros would stay zeros


seed_ids()
os.register_at_fork(after_in_child=seed_ids)


cdef inline uint64_t _rotate(uint64_t x, int k) noexcept nogil:
    return (x << k) | (x >> (64 - k))


cdef inline uint64_t _next() noexcept nogil:
    cdef uint64_t made = _rotate(_state[0] + _state[3], 23) + _state[0]
    cdef uint64_t shifted = _state[1] << 17
    _state[2] ^= _state[0]
    _state[3] ^= _state[1]
    _state[1] ^= _state[2]
    _state[0] ^= _state[3]
    _state[2] ^= shifted
    _state[3] = _rotate(_state[3], 45)
    return made


def new_id():
    """32 random hexadecimal digits."""
    cdef bytes made = PyBytes_FromStringAndSize(NULL, 32)
    cdef char* out = PyBytes_AS_STRING(made)
    cdef const char* digits = "0123456789abcdef"
    cdef uint64_t part
    cdef int i
    cdef int half
    for half in range(2):
        part = _next()
        for i in range(16):
            out[half * 16 + i] = digits[part & 15]
            part >>= 4
    return made


# The access log.

cdef int put_plain(Writer* out, const char* key, Py_ssize_t k, const char* text, Py_ssize_t n) except -1:
    """A key with its text; returns 1 where that has to be escaped."""
    cdef Py_ssize_t i
    for i in range(n):
        if not KIND[<uint8_t>text[i]] & PLAIN:
            return 1
    put(out, key, k)
    put(out, text, n)
    return 0


cdef inline int put_text(Writer* out, const char* key, Py_ssize_t k, object text) except -1:
    if not PyUnicode_CheckExact(text) or not PyUnicode_IS_COMPACT_ASCII(text):
        return 1
    return put_plain(out, key, k, <const char*>PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text))


cdef int put_ms(Writer* out, const char* key, Py_ssize_t k, double seconds) except -1:
    """A key with milliseconds to three places, as short as they are; 1 for what is no duration."""
    cdef uint64_t us
    cdef int rest
    cdef int size = 2
    cdef char places[4]
    if not 0 <= seconds < 1e8:
        return 1
    us = <uint64_t>(seconds * 1e6 + 0.5)
    rest = <int>(us % 1000)
    places[0] = c'.'
    places[1] = <char>(48 + rest // 100)
    places[2] = <char>(48 + rest // 10 % 10)
    places[3] = <char>(48 + rest % 10)
    if rest % 10:
        size = 4
    elif rest % 100:
        size = 3
    put(out, key, k)
    put_int(out, us // 1000)
    put(out, places, size)
    return 0


cdef inline int put_count(Writer* out, const char* key, Py_ssize_t k, int64_t count) except -1:
    if count < 0:
        return 1
    put(out, key, k)
    put_int(out, <uint64_t>count)
    return 0


# RFC 3339 in UTC, of the second that a line was written in last.
cdef int64_t _second = -1
cdef char _date[20]


cdef int put_time(Writer* out, double now) except -1:
    """A time in UTC, with milliseconds; 1 for one beyond the years 1970 to 9999."""
    global _second
    cdef int64_t second
    cdef int ms
    cdef char rest[5]
    cdef bytes date
    if not 0 <= now < 253402300800.0:
        return 1
    second = <int64_t>now
    if second != _second:
        date = strftime("%Y-%m-%dT%H:%M:%S.", gmtime(second)).encode("ascii")
        if PyBytes_GET_SIZE(date) != sizeof(_date):
            return 1
        memcpy(_date, PyBytes_AS_STRING(date), sizeof(_date))
        _second = second
    ms = <int>((now - <double>second) * 1000)
    rest[0] = <char>(48 + ms // 100)
    rest[1] = <char>(48 + ms // 10 % 10)
    rest[2] = <char>(48 + ms % 10)
    put(out, '{"time":"', 9)
    put(out, _date, sizeof(_date))
    put(out, rest, 3)
    put(out, "Z", 1)
    return 0


def write_access_line(
    bytearray lines not None, double now, client, method, path, route, int64_t status, source,
    double duration_s, bytes request_id not None, reason, client_id, upstream, double upstream_s,
    int64_t bytes_in, int64_t bytes_out, int64_t grpc_status, protocol,
):
    """Append a line of the access log, in JSON; False, and nothing, where Python has to."""
    cdef Writer out
    cdef Py_ssize_t before
    writer_open(&out)
    try:
        # A key begins with the end of the value before it.
        if (
            put_time(&out, now)
            or put_text(&out, '","client":"', 12, client)
            or put_text(&out, '","method":"', 12, method)
            or put_text(&out, '","path":"', 10, path)
            or put_text(&out, '","route":"', 11, route)
            or put_count(&out, '","status":', 11, status)
            or put_text(&out, ',"source":"', 11, source)
            or put_ms(&out, '","duration_ms":', 16, duration_s)
            or put_plain(
                &out, ',"request_id":"', 15, PyBytes_AS_STRING(request_id), PyBytes_GET_SIZE(request_id)
            )
            or (reason and put_text(&out, '","reason":"', 12, reason))
            or (client_id and put_text(&out, '","client_id":"', 15, client_id))
            or (upstream and put_text(&out, '","upstream":"', 14, upstream))
        ):
            return False
        put(&out, '"', 1)
        if (
            (upstream and put_ms(&out, ',"upstream_ms":', 15, upstream_s))
            or (bytes_in and put_count(&out, ',"bytes_in":', 12, bytes_in))
            or (bytes_out and put_count(&out, ',"bytes_out":', 13, bytes_out))
            or (grpc_status >= 0 and put_count(&out, ',"grpc_status":', 15, grpc_status))
        ):
            return False
        if protocol:
            if put_text(&out, ',"protocol":"', 13, protocol):
                return False
            put(&out, '"', 1)
        put(&out, "}\n", 2)
        before = PyByteArray_GET_SIZE(lines)
        PyByteArray_Resize(lines, before + (out.at - out.start))
        memcpy(PyByteArray_AS_STRING(lines) + before, out.start, out.at - out.start)
        return True
    finally:
        writer_close(&out)


# Metrics.

cdef frozenset _COUNTED = frozenset(
    ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
)


def count_request(requests, method, status, source):
    """Count a request by method, status and source; False for what is no dictionary."""
    cdef PyObject* found
    cdef tuple key
    if not PyDict_Check(requests):
        return False
    key = (method if method in _COUNTED else "_OTHER", status, source)
    found = PyDict_GetItemWithError(requests, key)
    PyDict_SetItem(requests, key, 1 if found == NULL else <object>found + 1)
    return True


cdef class BucketCounts:
    """See `absent.py`."""

    cdef double _bounds[32]
    cdef int64_t _counts[33]
    cdef int _size
    cdef readonly tuple bounds
    cdef public double total

    def __init__(self, bounds):
        cdef int i
        self.bounds = tuple(bounds)
        if len(self.bounds) > 32:
            raise ValueError("too many buckets")
        self._size = <int>len(self.bounds)
        for i in range(self._size):
            self._bounds[i] = self.bounds[i]
        for i in range(33):
            self._counts[i] = 0
        self.total = 0.0

    @property
    def counts(self):
        return [self._counts[i] for i in range(self._size + 1)]

    def observe(self, double value):
        cdef int i = 0
        while i < self._size and self._bounds[i] < value:
            i += 1
        self._counts[i] += 1
        self.total += value


# Routes.

def longest_prefix(dict table not None, path):
    """The entry of a path or of the longest prefix of it that ends before a slash; None where there
    is none, or Python has to look."""
    cdef PyObject* found
    cdef Py_ssize_t n
    cdef const char* text
    if not PyUnicode_CheckExact(path) or not PyUnicode_IS_COMPACT_ASCII(path):
        return None
    found = PyDict_GetItemWithError(table, path)
    if found != NULL:
        return <object>found
    n = PyUnicode_GET_LENGTH(path)
    if n < 1 or n > 64:
        return None
    text = <const char*>PyUnicode_DATA(path)
    if text[0] != c'/':
        return None
    while n > 1:
        n -= 1
        while n > 0 and text[n] != c'/':
            n -= 1
        found = PyDict_GetItemWithError(table, _ascii(text, n if n else 1))
        if found != NULL:
            return <object>found
    return None
