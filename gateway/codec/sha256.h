/* SHA-256 (FIPS 180-4) of short texts for native.pyx: portable, and by the instructions of x86-64
   processors that have them. For look-up keys of the token cache, made once per request: setting up
   the general-purpose one costs more than the digest itself. */
#ifndef GATEWAY_CODEC_SHA256_H
#define GATEWAY_CODEC_SHA256_H

#include <stdint.h>
#include <string.h>

static const uint32_t codec_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
static const uint32_t codec_h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

#define CODEC_R(x, n) (((x) >> (n)) | ((x) << (32 - (n))))

#define CODEC_ROUND(a, b, c, d, e, f, g, h, i)                                             \
    {                                                                                      \
        uint32_t t = h + (CODEC_R(e, 6) ^ CODEC_R(e, 11) ^ CODEC_R(e, 25)) +               \
                     (g ^ (e & (f ^ g))) + codec_k[i] + w[i];                              \
        d += t;                                                                            \
        h = t + (CODEC_R(a, 2) ^ CODEC_R(a, 13) ^ CODEC_R(a, 22)) + ((a & b) | (c & (a | b))); \
    }

static void codec_block_portable(uint32_t state[8], const uint8_t *data) {
    uint32_t w[64];
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    int i;
    for (i = 0; i < 16; i++)
        w[i] = (uint32_t)data[4 * i] << 24 | (uint32_t)data[4 * i + 1] << 16 |
               (uint32_t)data[4 * i + 2] << 8 | data[4 * i + 3];
    for (; i < 64; i++)
        w[i] = w[i - 16] + (CODEC_R(w[i - 15], 7) ^ CODEC_R(w[i - 15], 18) ^ (w[i - 15] >> 3)) +
               w[i - 7] + (CODEC_R(w[i - 2], 17) ^ CODEC_R(w[i - 2], 19) ^ (w[i - 2] >> 10));
    for (i = 0; i < 64; i += 8) {
        CODEC_ROUND(a, b, c, d, e, f, g, h, i)
        CODEC_ROUND(h, a, b, c, d, e, f, g, i + 1)
        CODEC_ROUND(g, h, a, b, c, d, e, f, i + 2)
        CODEC_ROUND(f, g, h, a, b, c, d, e, i + 3)
        CODEC_ROUND(e, f, g, h, a, b, c, d, i + 4)
        CODEC_ROUND(d, e, f, g, h, a, b, c, i + 5)
        CODEC_ROUND(c, d, e, f, g, h, a, b, i + 6)
        CODEC_ROUND(b, c, d, e, f, g, h, a, i + 7)
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <cpuid.h>
#include <immintrin.h>

__attribute__((target("sha,sse4.1,ssse3"))) static void codec_block_ni(uint32_t state[8],
                                                                      const uint8_t *data) {
    const __m128i order = _mm_set_epi64x(0x0c0d0e0f08090a0bULL, 0x0405060700010203ULL);
    __m128i t = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)&state[0]), 0xB1);
    __m128i s1 = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)&state[4]), 0x1B);
    __m128i s0 = _mm_alignr_epi8(t, s1, 8);
    s1 = _mm_blend_epi16(s1, t, 0xF0);
    const __m128i before0 = s0, before1 = s1;
    __m128i w[4];
    int i;
    for (i = 0; i < 4; i++)
        w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 16 * i)), order);
    for (i = 0; i < 16; i++) {
        __m128i x = w[i & 3];
        __m128i k = _mm_add_epi32(x, _mm_loadu_si128((const __m128i *)&codec_k[4 * i]));
        s1 = _mm_sha256rnds2_epu32(s1, s0, k);
        s0 = _mm_sha256rnds2_epu32(s0, s1, _mm_shuffle_epi32(k, 0x0E));
        if (i < 12) {
            __m128i y = _mm_sha256msg1_epu32(x, w[(i + 1) & 3]);
            y = _mm_add_epi32(y, _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
            w[i & 3] = _mm_sha256msg2_epu32(y, w[(i + 3) & 3]);
        }
    }
    s0 = _mm_add_epi32(s0, before0);
    s1 = _mm_add_epi32(s1, before1);
    t = _mm_shuffle_epi32(s0, 0x1B);
    s1 = _mm_shuffle_epi32(s1, 0xB1);
    _mm_storeu_si128((__m128i *)&state[0], _mm_blend_epi16(t, s1, 0xF0));
    _mm_storeu_si128((__m128i *)&state[4], _mm_alignr_epi8(s1, t, 8));
}

static int codec_has_sha_instructions(void) {
    static int known = -1;
    unsigned a, b, c, d;
    if (known < 0)
        known = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1) &&
                __get_cpuid(1, &a, &b, &c, &d) && (c >> 9 & 1) && (c >> 19 & 1);
    return known;
}
#else
static int codec_has_sha_instructions(void) { return 0; }
#define codec_block_ni codec_block_portable
#endif

static void codec_sha256(const uint8_t *data, size_t size, uint8_t *out, int portable) {
    void (*block)(uint32_t *, const uint8_t *) =
        !portable && codec_has_sha_instructions() ? codec_block_ni : codec_block_portable;
    uint32_t state[8];
    uint8_t last[128];
    size_t rest = size % 64, padded = rest < 56 ? 64 : 128, i;
    uint64_t bits = (uint64_t)size * 8;
    memcpy(state, codec_h, sizeof state);
    for (i = 0; i + 64 <= size; i += 64)
        block(state, data + i);
    memset(last, 0, sizeof last);
    memcpy(last, data + i, rest);
    last[rest] = 0x80;
    for (i = 0; i < 8; i++)
        last[padded - 1 - i] = (uint8_t)(bits >> (8 * i));
    for (i = 0; i < padded; i += 64)
        block(state, last + i);
    for (i = 0; i < 32; i++)
        out[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}

#endif
