// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
//
// Vectors, maps, layers and the matrix product that `resnet.c` is made of.
//
// Maps lie as (image, row, column, channel) with a border of zeros. Weights come packed by panels
// of PANEL output channels, so that one product keeps a block of results in registers.

#pragma once

#if defined(BF16) && (!defined(__AVX512BF16__) || defined(__AMX_BF16__))
#error "No products of bfloat16, or faster ones that OpenVINO knows to use."
#endif
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#if defined(__x86_64__) && !defined(__FMA__)
#error "Too few registers: OpenVINO's own convolutions are faster."
#elif defined(__AVX512F__)
enum { LANES = 16, PER_PANEL = 4 };
#elif defined(__FMA__)
enum { LANES = 8, PER_PANEL = 2 };
#else
enum { LANES = 4, PER_PANEL = 4 };
#endif
enum { PANEL = LANES * PER_PANEL, ROWS = 6, MOST_TILES = 24, TILE = 4, PATCH = TILE + 2 };
enum { CACHE_LINE = 64 };

typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef unsigned char Bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef int Mask __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float HalfVec __attribute__((vector_size(2 * LANES)));
typedef double Doubles __attribute__((vector_size(4 * LANES)));  // half as many
#ifdef BF16
typedef unsigned short Element;
enum { GROUP = 2 };  // factors that are multiplied and added at once; weights lie so
#else
typedef float Element;
enum { GROUP = 1 };
#endif
#define UNROLL _Pragma("GCC unroll 9")
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    Element *data;  // floats or bytes of the raw pictures
    long height, width, channels, border, rows, columns;  // the last two with the border
} Map;

enum { PICTURE, DIRECT, WINOGRAD, POOL, MOMENTS, NORMALISE, BYTES, PEAK, QUANTISE,
       WINOGRAD_BYTES };

typedef struct {
    long kind;
    const Map *in, *out, *residual;  // added before the ReLU; may be `out` itself
    const Element *weight;
    const float *bias, *scale;  // scale: of PICTURE, NORMALISE and BYTES
    double *moments;            // of MOMENTS and NORMALISE; of PEAK, QUANTISE and BYTES
    long side, stride, pad, relu, pooled;
} Layer;

INLINE Element *pixel(const Map *map, long image, long row, long column) {
    long line = image * map->rows + row + map->border;
    return map->data + (line * map->columns + column + map->border) * map->channels;
}

INLINE Vec load(const float *from) { return *(const Vec *)from; }
INLINE Vec widen_bytes(const unsigned char *from) {
    return __builtin_convertvector(*(const Bytes *)from, Vec);
}
INLINE void store(float *to, Vec value) { *(Vec *)to = value; }

#ifdef BF16
INLINE Vec widen(const Element *from) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
    return (Vec)_mm512_slli_epi32(wide, 16);
}
INLINE void narrow(Element *to, Vec value) {
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh((__m512)value));
}
INLINE Vec accumulate(Vec sum, const Element *a, Vec weight) {
    int pair;
    __builtin_memcpy(&pair, a, sizeof pair);
    return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(pair),
                                 (__m512bh)weight);
}
#else
INLINE Vec widen(const Element *from) { return load(from); }
INLINE void narrow(Element *to, Vec value) { store(to, value); }
INLINE Vec accumulate(Vec sum, const Element *a, Vec weight) { return sum + *a * weight; }
#endif

#if defined(BF16) && defined(__AVX512VNNI__)
#define BYTE_PRODUCTS
typedef int Ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE void narrow_to_bytes(unsigned char *to, Vec value) {
    _mm_storeu_si128((__m128i *)to, _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32((__m512)value)));
}

// Add four products to each sum: bytes of a, the same for all, times signed ones of a panel.
INLINE Ints add_bytes(Ints sum, const unsigned char *a, const signed char *weight) {
    int four;
    __builtin_memcpy(&four, a, sizeof four);
    return (Ints)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(four),
                                     _mm512_loadu_si512(weight));
}
#endif

// The larger of two; NaN in either stays, so that it is seen in the end.
INLINE Vec larger(Vec a, Vec b) {
    Mask second = (b > a) | (b != b);
    return (Vec)(((Mask)b & second) | ((Mask)a & ~second));
}

// Maxima of what has passed `relu`, MAXIMA at once.
#ifdef BF16
enum { MAXIMA = 32 };
typedef __m512i Maxima;
INLINE Maxima most_of(Maxima most, const Element *from) {
    return _mm512_max_epi16(most, _mm512_loadu_si512(from));  // in the order of their bits
}
INLINE void put_maxima(Element *to, Maxima most) { _mm512_storeu_si512(to, most); }
#else
enum { MAXIMA = LANES };
typedef Vec Maxima;
INLINE Maxima most_of(Maxima most, const Element *from) { return larger(most, load(from)); }
INLINE void put_maxima(Element *to, Maxima most) { store(to, most); }
#endif

// NaN stays; no zero is negative.
INLINE Vec relu(Vec value) {
#ifdef __AVX512F__
    __m512 most = _mm512_max_ps(_mm512_setzero_ps(), (__m512)value);  // of NaN, the second
    return (Vec)_mm512_and_si512((__m512i)most, _mm512_set1_epi32(0x7fffffff));
#else
    return larger(value, (Vec){0}) + (Vec){0};
#endif
}

// Add `length` products of `rows` rows of a (`step` apart) with a packed panel. Meanwhile some of
// what comes `ahead` is fetched from memory.
INLINE void multiply(long rows, const Element *a, long step, long length, const Element *panel,
                     const Element *ahead, Vec sum[ROWS][PER_PANEL]) {
    for (long k = 0; k < length; k += GROUP, panel += GROUP * PANEL) {
        __builtin_prefetch(ahead, 0, 2);
        ahead += CACHE_LINE / sizeof *ahead;
        Vec weight[PER_PANEL];
        UNROLL for (long p = 0; p < PER_PANEL; p++) {
            weight[p] = *(const Vec *)(panel + p * GROUP * LANES);
        }
        UNROLL for (long r = 0; r < rows; r++) {
            UNROLL for (long p = 0; p < PER_PANEL; p++) {
                sum[r][p] = accumulate(sum[r][p], a + r * step + k, weight[p]);
            }
        }
    }
}

#ifdef BYTE_PRODUCTS
// The same of bytes, and sums of integers.
INLINE void multiply_bytes(long rows, const unsigned char *a, long step, long length,
                           const signed char *panel, const char *ahead,
                           Ints sum[ROWS][PER_PANEL]) {
    for (long k = 0; k < length; k += 4, panel += 4 * PANEL) {
        __builtin_prefetch(ahead, 0, 2);
        ahead += CACHE_LINE;
        UNROLL for (long r = 0; r < rows; r++) {
            UNROLL for (long p = 0; p < PER_PANEL; p++) {
                sum[r][p] = add_bytes(sum[r][p], a + r * step + k, panel + p * 4 * LANES);
            }
        }
    }
}
#endif
