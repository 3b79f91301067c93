// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
//
// Pooling: the largest of 3x3 neighbours, stride 2.

#pragma once

#include "vector.h"

// Maxima of what has passed `relu`. Such bfloat16 are in the order of their bits, NaN above all, so
// 32 are compared at once as integers.
#ifdef BF16
enum { MAXIMA = 32 };
typedef __m512i Maxima;
INLINE Maxima most_of(Maxima most, const Element *from) {
    return _mm512_max_epi16(most, _mm512_loadu_si512(from));
}
INLINE void put_maxima(Element *to, Maxima most) { _mm512_storeu_si512(to, most); }
#else
enum { MAXIMA = LANES };
typedef Vec Maxima;
INLINE Maxima most_of(Maxima most, const Element *from) { return larger(most, load(from)); }
INLINE void put_maxima(Element *to, Maxima most) { store(to, most); }
#endif

// One row of the output. The input's rows begin left of the first column; zeros around are neutral,
// for what is pooled has passed a ReLU.
static void pool_row(const Element *const rows[3], long channels, Element *to, long width) {
    for (long x = 0; x < width; x++, to += channels) {
        for (long c = 0; c < channels; c += MAXIMA) {
            Maxima most = {0};
            UNROLL for (long i = 0; i < 9; i++) {
                most = most_of(most, rows[i / 3] + (2 * x + i % 3) * channels + c);
            }
            put_maxima(to + c, most);
        }
    }
}

// Pieces: rows of the output.
static void pool(const Layer *layer, long piece) {
    const Map *in = layer->in, *out = layer->out;
    long image = piece / out->height, y = piece % out->height;
    const Element *rows[3];
    for (long i = 0; i < 3; i++) rows[i] = pixel(in, image, 2 * y - 1 + i, -1);
    pool_row(rows, in->channels, pixel(out, image, y, 0), out->width);
}
