// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
//
// Convolutions as sums of matrix products, of numbers or of bytes.
//
// Bytes are 8 bits without a sign, a picture's own or those that `quantise` makes of a map without
// negative numbers: with its largest as 255. Weights have 8 bits then too, with a sign.

#pragma once

#include "resnet.h"

static long outputs_of(const Layer *layer, long inputs) {
    return (inputs + 2 * layer->pad - layer->side) / layer->stride + 1;
}

// -- numbers ------------------------------------------------------------------------------------

INLINE void direct_pixels(const Layer *layer, long rows, long image, long y, long x, long panel,
                          Element *to) {
    const Map *in = layer->in, *out = layer->out;
    // an odd run takes one more value in, times zero
    long run = (layer->side * in->channels + GROUP - 1) / GROUP * GROUP;
    long size = layer->side * run * PANEL;
    long row = y * layer->stride - layer->pad, column = x * layer->stride - layer->pad;
    const Element *a = pixel(in, image, row, column), *weight = layer->weight + panel * size;
    const float *bias = layer->bias + panel * PANEL;
    Vec sum[ROWS][PER_PANEL];
    UNROLL for (long r = 0; r < rows; r++) {
        UNROLL for (long p = 0; p < PER_PANEL; p++) sum[r][p] = load(bias + p * LANES);
    }
    for (long tap = 0; tap < layer->side; tap++) {
        multiply(rows, a, layer->stride * in->channels, run, weight, weight + run * PANEL, sum);
        a += in->columns * in->channels;
        weight += run * PANEL;
    }
    UNROLL for (long r = 0; r < rows; r++) {
        UNROLL for (long p = 0; p < PER_PANEL; p++) {
            Vec value = layer->relu ? relu(sum[r][p]) : sum[r][p];
            narrow(to + r * out->channels + p * LANES, value);
        }
    }
}

// -- bytes --------------------------------------------------------------------------------------

// The largest number of an image, of which `peak` has written that of each row.
static float top_of(const Layer *layer, const Map *map, long image) {
    const double *row = layer->moments + image * map->height;
    double top = row[0];
    for (long y = 1; y < map->height; y++) top = row[y] > top || row[y] != row[y] ? row[y] : top;
    return top;
}

// Pieces: rows.
static void peak(const Layer *layer, long piece) {
    const Map *in = layer->in;
    const Element *from = pixel(in, piece / in->height, piece % in->height, 0);
    Vec most = {0};
    for (long i = 0; i < in->width * in->channels; i += LANES) most = larger(most, widen(from + i));
    double top = most[0];
    for (long i = 1; i < LANES; i++) top = most[i] > top || most[i] != most[i] ? most[i] : top;
    layer->moments[piece] = top;
}

long koch_has_bytes(void) {
#ifdef BYTE_PRODUCTS
    return 1;
#else
    return 0;
#endif
}

#ifdef BYTE_PRODUCTS
static unsigned char *byte_pixel(const Map *map, long image, long row, long column) {
    long line = image * map->rows + row + map->border;
    return (unsigned char *)map->data + (line * map->columns + column + map->border) * map->channels;
}

// Pieces: rows.
static void quantise(const Layer *layer, long piece) {
    const Map *in = layer->in;
    long image = piece / in->height, y = piece % in->height;
    float top = top_of(layer, in, image), factor = top > 0 ? 255 / top : 0;
    const Element *from = pixel(in, image, y, 0);
    unsigned char *to = byte_pixel(layer->out, image, y, 0);
    for (long i = 0; i < in->width * in->channels; i += LANES) {
        narrow_to_bytes(to + i, widen(from + i) * factor);
    }
}

// Pictures have weights, bias and scale each; maps are of one kind, but each has its largest.
INLINE void byte_pixels(const Layer *layer, float unit, long rows, long image, long y, long x,
                        long panel, Element *to) {
    const Map *in = layer->in, *out = layer->out;
    long run = (layer->side * in->channels + 3) / 4 * 4, step = layer->stride * in->channels;
    long own = (layer->moments ? 0 : image) * out->channels + panel * PANEL;
    const signed char *weight = (const signed char *)layer->weight + own * layer->side * run;
    const unsigned char *a =
        byte_pixel(in, image, y * layer->stride - layer->pad, x * layer->stride - layer->pad);
    Ints sum[ROWS][PER_PANEL];
    UNROLL for (long r = 0; r < rows; r++) {
        UNROLL for (long p = 0; p < PER_PANEL; p++) sum[r][p] = (Ints){0};
    }
    for (long tap = 0; tap < layer->side; tap++, a += in->columns * in->channels) {
        for (long k = 0; k < run; k += 4, weight += 4 * PANEL) {
            UNROLL for (long r = 0; r < rows; r++) {
                UNROLL for (long p = 0; p < PER_PANEL; p++) {
                    sum[r][p] = add_bytes(sum[r][p], a + r * step + k, weight + p * 4 * LANES);
                }
            }
        }
    }
    UNROLL for (long p = 0; p < PER_PANEL; p++) {
        Vec scale = load(layer->scale + own + p * LANES) * unit;
        Vec bias = load(layer->bias + own + p * LANES);
        UNROLL for (long r = 0; r < rows; r++) {
            Vec value = __builtin_convertvector(sum[r][p], Vec) * scale + bias;
            narrow(to + r * out->channels + p * LANES, layer->relu ? relu(value) : value);
        }
    }
}
#else
static void quantise(const Layer *layer, long piece) { (void)layer, (void)piece; }
#endif

// -- both ---------------------------------------------------------------------------------------

// `unit`: what one step of a map of bytes stands for.
INLINE void pixels(const Layer *layer, float unit, long rows, long image, long y, long x,
                   long panel, Element *to) {
#ifdef BYTE_PRODUCTS
    if (layer->kind == BYTES) {
        byte_pixels(layer, unit, rows, image, y, x, panel, to);
        return;
    }
#endif
    (void)unit;
    direct_pixels(layer, rows, image, y, x, panel, to);
}

// One row of the output, `width` long.
static void convolve_row(const Layer *layer, long image, long y, Element *row, long width) {
    long channels = layer->out->channels, groups = (width + ROWS - 1) / ROWS;
    float unit = layer->moments ? top_of(layer, layer->in, image) / 255 : 1;
    for (long panel = 0; panel < channels / PANEL; panel++) {
        for (long group = 0; group < groups; group++) {
            long x = group * width / groups, rows = (group + 1) * width / groups - x;
            Element *to = row + x * channels + panel * PANEL;
            switch (rows) {
                case 1: pixels(layer, unit, 1, image, y, x, panel, to); break;
                case 2: pixels(layer, unit, 2, image, y, x, panel, to); break;
                case 3: pixels(layer, unit, 3, image, y, x, panel, to); break;
                case 4: pixels(layer, unit, 4, image, y, x, panel, to); break;
                case 5: pixels(layer, unit, 5, image, y, x, panel, to); break;
                default: pixels(layer, unit, 6, image, y, x, panel, to);
            }
        }
    }
}

// Pieces: rows of the output.
static void convolve(const Layer *layer, long piece) {
    const Map *out = layer->out;
    long image = piece / out->height, y = piece % out->height;
    convolve_row(layer, image, y, pixel(out, image, y, 0), out->width);
}
