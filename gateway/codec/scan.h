/* Scans of bytes for native.pyx, bounded by the end of the input. */
#ifndef GATEWAY_CODEC_SCAN_H
#define GATEWAY_CODEC_SCAN_H

#include <stdint.h>
#include <string.h>

#define CODEC_EACH(byte) (0x0101010101010101ULL * (byte))

/* Skip what a field value may hold, [\t -~\x80-\xff]: eight bytes at a time as long as none of them
   is a control character, the tab included, which the loop behind looks at. */
static inline const char *codec_skip_value(const char *at, const char *end) {
    for (;;) {
        while (end - at >= 8) {
            uint64_t word, del;
            memcpy(&word, at, 8);
            del = word ^ CODEC_EACH(0x7f);
            if ((((word - CODEC_EACH(0x20)) & ~word) | ((del - CODEC_EACH(1)) & ~del)) & CODEC_EACH(0x80))
                break;
            at += 8;
        }
        const char *stop = end - at < 8 ? end : at + 8;
        while (at < stop) {
            unsigned char byte = (unsigned char)*at;
            if ((byte < 0x20 && byte != '\t') || byte == 0x7f)
                return at;
            at++;
        }
        if (at == end)
            return at;
    }
}

/* Whether a text has a part, whose first byte is not 0 and which is not empty. */
static inline int codec_contains(const char *text, Py_ssize_t n, const char *part, Py_ssize_t m) {
    const char *end = text + n;
    while (end - text >= m) {
        text = (const char *)memchr(text, part[0], (size_t)(end - text - m + 1));
        if (text == NULL)
            return 0;
        if (memcmp(text, part, (size_t)m) == 0)
            return 1;
        text++;
    }
    return 0;
}

#endif
