// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
//
// 3x3 convolutions by Winograd's minimal filtering, 4x4 outputs at once. Lavin and Gray 2015, "Fast
// Algorithms for Convolutional Neural Networks", section 4.3.
//
// The outputs of a tile are the coefficients of a product of two polynomials. Values of polynomials
// at some points ("frequencies" here) multiply one by one, which is fewer multiplications than for
// the coefficients. So: patch -> frequencies (`forward`), times the weights' frequencies and summed
// over the inputs (`products`, a matrix product for each frequency), -> outputs (`backward`).
//
// With stride 1, F(4x4, 3x3): 36 multiplications instead of 144. The points are 0, +-1/c, +-c and
// infinity, c^2 = 2: rounding does half the harm that it does with the usual 0, +-1, +-2 (Alam et
// al. 2022, "Winograd Convolution for Deep Neural Networks: Efficient Point Selection").
//
// With stride 2, even and odd lines apart: F(4, 2) for the two outer factors, which meet even ones,
// at +-0.4, +-1.25 and infinity, and four plain products for the middle one: 81 instead of 144. As
// plain ones share their factor, there are 36 different ones again.
//
//   weight (36, outputs / PANEL, inputs, PANEL), transformed by Python; see `panel_size` for bytes

#pragma once

#include "vector.h"

enum { TILE = 4, PATCH = TILE + 2, STRIDED_PATCH = 2 * TILE + 1, WEIGHTS = PATCH * PATCH };
// Tiles of one piece of work, at most; other counts were no faster.
enum { MOST_TILES = 24, MOST_STRIDED = 12 };
static const float ROOT = 1.41421356f, P = 0.4f, Q = 1.25f;

INLINE long patch_of(long stride) { return stride == 1 ? PATCH : STRIDED_PATCH; }
INLINE long most_tiles(long stride) { return stride == 1 ? MOST_TILES : MOST_STRIDED; }

// Where a frequency lies. Those that share their weights lie side by side.
INLINE long place_of(long stride, long y, long x) {
    if (stride == 1 || y < PATCH - 1) return y * patch_of(stride) + x;
    return x < PATCH - 1 ? 45 + x * TILE + y - 5 : 65 + (y - 5) * TILE + x - 5;
}

// The first of the frequencies that have weights `w`, and how many they are.
INLINE long first_of(long stride, long w) {
    return place_of(stride, w / PATCH, w % PATCH);
}
INLINE long sharing(long stride, long w) {
    if (stride == 1) return 1;
    return (w / PATCH == PATCH - 1 ? TILE : 1) * (w % PATCH == PATCH - 1 ? TILE : 1);
}

// -- one line, forward and backward ---------------------------------------------------------------

INLINE void forward_line(long stride, const Vec *x, Vec *y) {
    if (stride == 1) {
        Vec even = x[4] - 2 * x[2], odd = ROOT * (0.5f * x[3] - x[1]);
        Vec e = x[4] - 0.5f * x[2], o = ROOT * (x[3] - 0.5f * x[1]);
        y[0] = x[0] - 2.5f * x[2] + x[4];
        y[1] = even + odd, y[2] = even - odd;
        y[3] = e + o, y[4] = e - o;
        y[5] = x[1] - 2.5f * x[3] + x[5];
    } else {
        Vec even = x[6] - Q * Q * x[2], odd = P * (x[4] - Q * Q * x[0]);
        Vec e = x[6] - P * P * x[2], o = Q * (x[4] - P * P * x[0]);
        y[0] = even + odd, y[1] = even - odd;
        y[2] = e + o, y[3] = e - o;
        y[4] = x[8] - (P * P + Q * Q) * x[4] + P * P * Q * Q * x[0];
        y[5] = x[1], y[6] = x[3], y[7] = x[5], y[8] = x[7];
    }
}

INLINE void backward_line(long stride, const Vec *m, Vec *y) {
    if (stride == 1) {
        Vec a = m[1] + m[2], b = ROOT * (m[1] - m[2]), c = m[3] + m[4], d = ROOT * (m[3] - m[4]);
        y[0] = m[0] + a + c, y[1] = 0.5f * b + d;
        y[2] = 0.5f * a + 2 * c, y[3] = 0.25f * b + 2 * d + m[5];
    } else {
        Vec a = m[0] + m[1], b = P * (m[0] - m[1]), c = m[2] + m[3], d = Q * (m[2] - m[3]);
        y[0] = a + c + m[5], y[1] = b + d + m[6];
        y[2] = P * P * a + Q * Q * c + m[7], y[3] = P * P * b + Q * Q * d + m[4] + m[8];
    }
}

// -- tiles to frequencies -------------------------------------------------------------------------

typedef struct {
    long image, y, x;  // of its first output
} Tile;

INLINE const Element *patch_at(long stride, const Map *in, Tile tile) {
    return pixel(in, tile.image, stride * tile.y - 1, stride * tile.x - 1);
}

// A patch of LANES channels to its frequencies: columns first, then rows. They go to `to`, `step`
// elements apart, or, where `wide` is given, as floats there, `channels` apart.
INLINE void forward_patch(long stride, const Element *from, long pitch, long channels, Element *to,
                          long step, float *wide) {
    long size = patch_of(stride);
    Vec half[STRIDED_PATCH][STRIDED_PATCH], line[STRIDED_PATCH], out[STRIDED_PATCH];
    UNROLL for (long x = 0; x < size; x++) {  // half: [column][frequency]
        UNROLL for (long y = 0; y < size; y++) line[y] = widen(from + y * pitch + x * channels);
        forward_line(stride, line, half[x]);
    }
    UNROLL for (long y = 0; y < size; y++) {
        UNROLL for (long x = 0; x < size; x++) line[x] = half[x][y];
        forward_line(stride, line, out);
        UNROLL for (long x = 0; x < size; x++) {
            if (wide) {
                store(wide + place_of(stride, y, x) * channels, out[x]);
            } else {
                narrow(to + place_of(stride, y, x) * step, out[x]);
            }
        }
    }
}

INLINE void forward(long stride, const Map *in, const Tile *tiles, long count, Element *to,
                    long step) {
    long channels = in->channels, pitch = in->columns * channels;
    for (long t = 0; t < count; t++, to += channels) {
        const Element *from = patch_at(stride, in, tiles[t]);
        for (long c = 0; c < channels; c += LANES) {
            forward_patch(stride, from + c, pitch, channels, to + c, step, 0);
        }
    }
}

#ifdef BF16
enum { BYTE_ZERO = 128, BYTE_MOST = 127 };

// `forward`, rounded to bytes: 128 is zero, and the largest of a tile's frequency is 127 from it,
// over all channels. A scale for each tile and frequency, found each time, needs no calibration
// and clips nothing. `units`: what one step stands for, `count` of each frequency.
INLINE void forward_bytes(long stride, const Map *in, const Tile *tiles, long count,
                          unsigned char *to, long step, float *units, float *wide) {
    long channels = in->channels, pitch = in->columns * channels;
    for (long t = 0; t < count; t++, to += channels) {
        const Element *from = patch_at(stride, in, tiles[t]);
        for (long c = 0; c < channels; c += LANES) {
            forward_patch(stride, from + c, pitch, channels, 0, 0, wide + c);
        }
        for (long f = 0; f < patch_of(stride) * patch_of(stride); f++) {
            const float *values = wide + f * channels;
            __m512i most = _mm512_setzero_si512();  // as integers: NaN is larger than any number
            for (long c = 0; c < channels; c += LANES) {
                __m512 size = _mm512_abs_ps(_mm512_loadu_ps(values + c));
                most = _mm512_max_epi32(most, (__m512i)size);
            }
            int bits = _mm512_reduce_max_epi32(most);
            float top;
            __builtin_memcpy(&top, &bits, sizeof top);
            float factor = top > 0 ? BYTE_MOST / top : 0;
            units[f * count + t] = top / BYTE_MOST;
            for (long c = 0; c < channels; c += LANES) {
                narrow_to_bytes(to + f * step + c, load(values + c) * factor + BYTE_ZERO);
            }
        }
    }
}
#endif

// -- frequencies to outputs -----------------------------------------------------------------------

// Frequencies to the 4x4 outputs of one tile, of those that exist, with bias,
// shortcut and ReLU.
INLINE void backward(long stride, const Layer *layer, const float *from, long step,
                     const Tile *tile) {
    const Map *out = layer->out;
    long size = patch_of(stride);
    long height = out->height - tile->y < TILE ? out->height - tile->y : TILE;
    long width = out->width - tile->x < TILE ? out->width - tile->x : TILE;
    for (long c = 0; c < out->channels; c += LANES) {
        Vec half[STRIDED_PATCH][TILE], line[STRIDED_PATCH], done[TILE];
        Vec bias = load(layer->bias + c);
        UNROLL for (long x = 0; x < size; x++) {
            UNROLL for (long y = 0; y < size; y++) {
                line[y] = load(from + place_of(stride, y, x) * step + c);
            }
            backward_line(stride, line, half[x]);
        }
        UNROLL for (long y = 0; y < TILE; y++) {
            if (y >= height) break;
            UNROLL for (long x = 0; x < size; x++) line[x] = half[x][y];
            backward_line(stride, line, done);
            Element *to = pixel(out, tile->image, tile->y + y, tile->x) + c;
            const Element *more = 0;
            if (layer->residual) {
                more = pixel(layer->residual, tile->image, tile->y + y, tile->x) + c;
            }
            UNROLL for (long x = 0; x < TILE; x++) {
                if (x >= width) break;
                Vec value = done[x] + bias;
                if (more) value += widen(more + x * out->channels);
                narrow(to + x * out->channels, layer->relu ? relu(value) : value);
            }
        }
    }
}

// -- products of frequencies ----------------------------------------------------------------------
//
// `units` tells bytes from elements in all of these: it is given for bytes alone.

// Bytes that the weights of one frequency and panel take. With `units`: the weights, then PANEL
// integers that take off what 128 for zero has added, then what each sum is worth.
INLINE long panel_size(long inputs, const float *units) {
    return units ? inputs * PANEL + 2 * PANEL * (long)sizeof(float)
                 : inputs * PANEL * (long)sizeof(Element);
}

INLINE void frequency_rows(long rows, const char *a, long inputs, const char *panel,
                           const char *ahead, const float *units, float *to, long outputs) {
#ifdef BF16
    if (units) {
        const int *offset = (const int *)(panel + inputs * PANEL);
        const float *scale = (const float *)(offset + PANEL);
        Ints sum[ROWS][PER_PANEL];
        UNROLL for (long r = 0; r < rows; r++) {
            UNROLL for (long p = 0; p < PER_PANEL; p++) {
                sum[r][p] = *(const Ints *)(offset + p * LANES);
            }
        }
        multiply_bytes(rows, (const unsigned char *)a, inputs, inputs, (const signed char *)panel,
                       ahead, sum);
        UNROLL for (long p = 0; p < PER_PANEL; p++) {
            Vec worth = load(scale + p * LANES);
            UNROLL for (long r = 0; r < rows; r++) {
                Vec value = __builtin_convertvector(sum[r][p], Vec) * worth;
                store(to + r * outputs + p * LANES, value * units[r]);
            }
        }
        return;
    }
#endif
    (void)units;
    Vec sum[ROWS][PER_PANEL];
    UNROLL for (long r = 0; r < rows; r++) {
        UNROLL for (long p = 0; p < PER_PANEL; p++) sum[r][p] = (Vec){0};
    }
    multiply(rows, (const Element *)a, inputs, inputs, (const Element *)panel,
             (const Element *)ahead, sum);
    UNROLL for (long r = 0; r < rows; r++) {
        UNROLL for (long p = 0; p < PER_PANEL; p++) store(to + r * outputs + p * LANES, sum[r][p]);
    }
}

// (count, inputs) times (inputs, outputs), for weights of one frequency; with `units`, of bytes.
INLINE void product(long count, const char *a, long inputs, const char *weight,
                    const float *units, float *to, long outputs) {
    long groups = (count + ROWS - 1) / ROWS, size = units ? 1 : sizeof(Element);
    long whole = panel_size(inputs, units), share = inputs / (units ? 4 : GROUP) * CACHE_LINE;
    for (long panel = 0; panel < outputs; panel += PANEL, weight += whole) {
        for (long group = 0; group < groups; group++) {
            long t = group * count / groups, rows = (group + 1) * count / groups - t;
            const char *from = a + t * inputs * size;
            // each group fetches its share of the next panel, while there is one
            const char *ahead = weight + (group * share < whole ? whole + group * share : 0);
            const float *unit = units ? units + t : 0;
            float *place = to + t * outputs + panel;
            WITH_CONSTANT_ROWS(
                rows, frequency_rows(N, from, inputs, weight, ahead, unit, place, outputs))
        }
    }
}

static void products(const Layer *layer, long count, const char *a, const float *units, float *to) {
    long inputs = layer->in->channels, outputs = layer->out->channels, stride = layer->stride;
    long size = units ? 1 : sizeof(Element), step = outputs / PANEL * panel_size(inputs, units);
    const char *weight = (const char *)layer->weight;
    for (long w = 0; w < WEIGHTS; w++, weight += step) {
        long first = first_of(stride, w) * count, many = sharing(stride, w) * count;
        const char *from = a + first * inputs * size;
        float *place = to + first * outputs;
        // twice, so that each is compiled for its kind
        if (units) {
            product(many, from, inputs, weight, units + first, place, outputs);
        } else {
            product(many, from, inputs, weight, 0, place, outputs);
        }
    }
}

// -- a layer --------------------------------------------------------------------------------------

// Pieces: blocks of tiles, about equal, as many for each thread.
static long blocks_of(const Layer *layer, long images, long threads) {
    const Map *out = layer->out;
    long tiles = images * ((out->height + TILE - 1) / TILE) * ((out->width + TILE - 1) / TILE);
    long most = most_tiles(layer->stride), blocks = (tiles + most - 1) / most;
    return (blocks + threads - 1) / threads * threads;
}

INLINE void winograd_of(long stride, const Layer *layer, long piece, long images, long threads,
                        float *scratch) {
    const Map *in = layer->in, *out = layer->out;
    long across = (out->width + TILE - 1) / TILE, down = (out->height + TILE - 1) / TILE;
    long total = images * across * down, blocks = blocks_of(layer, images, threads);
    long first = piece * total / blocks, count = (piece + 1) * total / blocks - first;
    long step_in = count * in->channels, step_out = count * out->channels;
    long frequencies = patch_of(stride) * patch_of(stride);
    Tile tiles[MOST_TILES];
    for (long t = 0; t < count; t++) {
        long tile = first + t, x = tile % across, y = tile / across;
        tiles[t] = (Tile){y / down, y % down * TILE, x * TILE};
    }
    float *product_of = scratch, *rest = scratch + frequencies * step_out;
#ifdef BF16
    if (layer->kind == WINOGRAD_BYTES) {
        float *units = rest, *wide = units + frequencies * MOST_TILES;
        unsigned char *a = (unsigned char *)(wide + frequencies * in->channels);
        forward_bytes(stride, in, tiles, count, a, step_in, units, wide);
        products(layer, count, (const char *)a, units, product_of);
    } else
#endif
    {
        forward(stride, in, tiles, count, (Element *)rest, step_in);
        products(layer, count, (const char *)rest, 0, product_of);
    }
    for (long t = 0; t < count; t++) {
        backward(stride, layer, product_of + t * out->channels, step_out, tiles + t);
    }
}

// Each stride is compiled for itself, so that its lines are unrolled.
static void winograd(const Layer *layer, long piece, long images, long threads, float *scratch) {
    if (layer->stride == 1) {
        winograd_of(1, layer, piece, images, threads, scratch);
    } else {
        winograd_of(2, layer, piece, images, threads, scratch);
    }
}
