"""Cut what has come from a peer of HTTP/2 into pieces that end behind a few frames.

A single read can hold tens of thousands of frames, and an engine that is given all of them reports
all of them at once: other connections would wait. RFC 9113 section 4.1 (frames).
"""

from __future__ import annotations

_FRAME_HEAD_BYTES = 9
_HEADERS = 0x1
_CONTINUATION = 0x9
_END_HEADERS = 0x4


class Pieces:
    """Bytes of a peer, in the order in which they came."""

    __slots__ = ("_at", "_data", "_is_in_head", "_left_of_frame", "_max_bytes", "_max_frames",
                 "_max_heads", "frames", "has_more", "heads")  # fmt: skip

    def __init__(
        self, *, preface: int = 0, max_frames: int, max_heads: int = 0, max_bytes: int = 0
    ) -> None:
        """`preface` is how many bytes come before the first frame; the others are limits of a
        piece, 0 for none. The last frame of a piece may begin in it, and end in another."""
        self._max_frames = max_frames
        self._max_heads = max_heads or max_frames
        self._max_bytes = max_bytes
        self._data = b""
        self._at = 0
        """Of the data, what was taken."""
        self._left_of_frame = preface
        """Bytes before the head of the next frame."""
        self._is_in_head = False
        """Whether the last frame was one of a head, and not its last."""
        self.frames = 0
        """Of the last piece."""
        self.heads = 0
        """HEADERS frames among them."""
        self.has_more = False
        """Whether there was more behind it: the head of a frame, or the rest of one."""

    @property
    def size(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._at

    @property
    def lacks_rest(self) -> bool:
        """Whether what has come ends within a frame, or within a head; once all of it is taken."""
        return self._left_of_frame > 0 or self._is_in_head or self.size > 0

    def add(self, data: bytes) -> None:
        """Add what has come."""
        self._data = self._data[self._at :] + data if self._data else data
        self._at = 0

    def take(self) -> bytes:
        """Return the next piece; nothing where that is less than the head of a frame."""
        data, begin = self._data, self._at
        size = len(data)
        last = min(size, begin + self._max_bytes) if self._max_bytes else size
        last_head = min(last, size - _FRAME_HEAD_BYTES + 1)
        at = begin + self._left_of_frame
        heads = frames = 0
        while at < last_head:
            kind, flags = data[at + 3], data[at + 4]
            at += _FRAME_HEAD_BYTES + (data[at] << 16 | data[at + 1] << 8 | data[at + 2])
            frames += 1
            if kind == _CONTINUATION:
                self._is_in_head = not flags & _END_HEADERS
            elif kind == _HEADERS:
                self._is_in_head = not flags & _END_HEADERS
                heads += 1
                if heads == self._max_heads:
                    break
            if frames == self._max_frames:
                break
        self.frames, self.heads = frames, heads
        end = min(at, last)
        self._left_of_frame = at - end
        left = size - end
        self.has_more = left >= _FRAME_HEAD_BYTES or (left > 0 and at > end)
        if self.has_more:
            self._at = end
        else:  # an idle connection does not keep all of its last read
            self._data, self._at = data[end:], 0
        return data[begin:end]

    def clear(self) -> None:
        """Forget what is left."""
        self._data, self._at = b"", 0
        self.has_more = False
