// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
//
// What all kernels are written in: vectors of numbers, places in maps, and the product that keeps a
// block of results in registers.
//
// GCC's vector extensions let one source serve AVX2, AVX-512 and NEON; intrinsics stand only where
// an instruction has no operator.

#pragma once

#include "koch_fastconv.h"

#if defined(BF16) && !(defined(__AVX512BF16__) && defined(__AVX512VNNI__))
#error "bfloat16 is for processors that multiply it, and bytes."
#endif
#ifdef __AVX512F__
#include <immintrin.h>
#endif

// A block of results is ROWS pixels by PER_PANEL vectors. It must fit into the registers, with the
// weights beside it: 6 x 4 + 4 of 32 (AVX-512, NEON), 6 x 2 + 2 of 16 (AVX2).
#if defined(__AVX512F__)
enum { LANES = 16, PER_PANEL = 4 };
#elif defined(__FMA__)
enum { LANES = 8, PER_PANEL = 2 };
#else
enum { LANES = 4, PER_PANEL = 4 };
#endif
enum { PANEL = LANES * PER_PANEL, ROWS = 6, CACHE_LINE = 64 };

typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int Mask __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef unsigned char ByteVec __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef float HalfVec __attribute__((vector_size(2 * LANES)));
typedef double Doubles __attribute__((vector_size(4 * LANES)));  // as many as a HalfVec

// An element of maps and weights. GROUP of them are multiplied and added by one instruction, and
// weights lie in such groups.
#ifdef BF16
typedef unsigned short Element;
enum { GROUP = 2 };
#else
typedef float Element;
enum { GROUP = 1 };
#endif

// Blocks stay in registers only if every loop over them is unrolled and every call is inlined.
#define UNROLL _Pragma("GCC unroll 9")
#define INLINE static inline __attribute__((always_inline))

// -- places in maps -----------------------------------------------------------------------------

INLINE Element *pixel(const Map *map, long image, long row, long column) {
    long line = image * map->rows + row + map->border;
    return (Element *)map->data + (line * map->columns + column + map->border) * map->channels;
}

// -- loading and storing ------------------------------------------------------------------------

INLINE Vec load(const float *from) { return *(const Vec *)from; }
INLINE void store(float *to, Vec value) { *(Vec *)to = value; }
INLINE Vec widen_bytes(const unsigned char *from) {
    return __builtin_convertvector(*(const ByteVec *)from, Vec);
}

#ifdef BF16
// bfloat16 is the upper half of a float32.
INLINE Vec widen(const Element *from) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
    return (Vec)_mm512_slli_epi32(wide, 16);
}
INLINE void narrow(Element *to, Vec value) {
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh((__m512)value));
}
#else
INLINE Vec widen(const Element *from) { return load(from); }
INLINE void narrow(Element *to, Vec value) { store(to, value); }
#endif

// -- what a NaN survives ------------------------------------------------------------------------
//
// A broken weight must show in the actions, which are checked for NaN. The usual maximum
// instructions drop it.

INLINE Vec larger(Vec a, Vec b) {
    Mask second = (b > a) | (b != b);
    return (Vec)(((Mask)b & second) | ((Mask)a & ~second));
}

// No zero that leaves it is negative, so that bits of floats and bfloat16 are in order as integers.
INLINE Vec relu(Vec value) {
#ifdef __AVX512F__
    __m512 most = _mm512_max_ps(_mm512_setzero_ps(), (__m512)value);  // of NaN, the second
    return (Vec)_mm512_and_si512((__m512i)most, _mm512_set1_epi32(0x7fffffff));
#else
    return larger(value, (Vec){0}) + (Vec){0};
#endif
}

// -- products -----------------------------------------------------------------------------------

#ifdef BF16
INLINE Vec accumulate(Vec sum, const Element *a, Vec weight) {
    int pair;
    __builtin_memcpy(&pair, a, sizeof pair);
    return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(pair),
                                 (__m512bh)weight);
}
#else
INLINE Vec accumulate(Vec sum, const Element *a, Vec weight) { return sum + *a * weight; }
#endif

// Add `length` products of `rows` rows of a (`step` apart) with a packed panel of weights.
// Meanwhile fetch some of what comes `ahead` from memory: a network's weights do not fit into the
// cache, and without this the products wait for them.
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

#ifdef BF16
typedef int Ints __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

// Rounded, and kept within 0..255.
INLINE void narrow_to_bytes(unsigned char *to, Vec value) {
    _mm_storeu_si128((__m128i *)to, _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32((__m512)value)));
}

// Add four products to each sum: bytes of a, the same for all, times signed ones of a panel.
INLINE Ints accumulate_bytes(Ints sum, const unsigned char *a, const signed char *weight) {
    int four;
    __builtin_memcpy(&four, a, sizeof four);
    return (Ints)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(four),
                                     _mm512_loadu_si512(weight));
}

// `multiply` for bytes, with sums of integers.
INLINE void multiply_bytes(long rows, const unsigned char *a, long step, long length,
                           const signed char *panel, const char *ahead,
                           Ints sum[ROWS][PER_PANEL]) {
    for (long k = 0; k < length; k += 4, panel += 4 * PANEL) {
        __builtin_prefetch(ahead, 0, 2);
        ahead += CACHE_LINE;
        UNROLL for (long r = 0; r < rows; r++) {
            UNROLL for (long p = 0; p < PER_PANEL; p++) {
                sum[r][p] = accumulate_bytes(sum[r][p], a + r * step + k, panel + p * 4 * LANES);
            }
        }
    }
}
#endif

// Call a function of a block with its number of rows as a constant, so that each number has code of
// its own. `rows` is 1 to ROWS.
#define WITH_CONSTANT_ROWS(rows, call)                    \
    switch (rows) {                                       \
        case 1: { enum { N = 1 }; call; break; }          \
        case 2: { enum { N = 2 }; call; break; }          \
        case 3: { enum { N = 3 }; call; break; }          \
        case 4: { enum { N = 4 }; call; break; }          \
        case 5: { enum { N = 5 }; call; break; }          \
        default: { enum { N = 6 }; call; }                \
    }
