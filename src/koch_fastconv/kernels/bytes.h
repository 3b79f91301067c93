// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
//
// Direct convolutions of bytes, for int8: four products in the time of two of bfloat16.
//
// Inputs are bytes without a sign. Either they are an image's own, which lose nothing; then each
// image has weights, bias and scale of its own, because its scaling is part of them. Or QUANTISE
// has made them of a map without negative numbers, with the map's largest number as 255. Weights
// are bytes with a sign:
//
//   weight (outputs / PANEL, side, side x inputs / 4, PANEL, 4)

#pragma once

#include "direct.h"

#ifdef BF16

// -- a map to bytes -----------------------------------------------------------------------------

// Pieces: rows. Writes the largest number of the row.
static void row_peaks(const Layer *layer, long piece) {
    const Map *in = layer->in;
    const Element *from = pixel(in, piece / in->height, piece % in->height, 0);
    Vec most = {0};
    for (long i = 0; i < in->width * in->channels; i += LANES) most = larger(most, widen(from + i));
    double top = most[0];
    for (long i = 1; i < LANES; i++) top = most[i] > top || most[i] != most[i] ? most[i] : top;
    layer->row_values[piece] = top;
}

// The largest number of an image, of which `row_peaks` has written that of each row; NaN stays.
static float image_peak(const Layer *layer, const Map *map, long image) {
    const double *row = layer->row_values + image * map->height;
    double top = row[0];
    for (long y = 1; y < map->height; y++) top = row[y] > top || row[y] != row[y] ? row[y] : top;
    return top;
}

static unsigned char *byte_pixel(const Map *map, long image, long row, long column) {
    long line = image * map->rows + row + map->border;
    return (unsigned char *)map->data + (line * map->columns + column + map->border) * map->channels;
}

// Pieces: rows.
static void quantise(const Layer *layer, long piece) {
    const Map *in = layer->in;
    long image = piece / in->height, y = piece % in->height;
    float top = image_peak(layer, in, image), factor = top > 0 ? 255 / top : 0;
    const Element *from = pixel(in, image, y, 0);
    unsigned char *to = byte_pixel(layer->out, image, y, 0);
    for (long i = 0; i < in->width * in->channels; i += LANES) {
        narrow_to_bytes(to + i, widen(from + i) * factor);
    }
}

// -- convolution --------------------------------------------------------------------------------

// `rows` neighbouring pixels of one panel. `unit`: what one step of the input's bytes stands for.
INLINE void bytes_block(const Layer *layer, float unit, long rows, long image, long y, long x,
                        long panel, Element *to) {
    const Map *in = layer->in, *out = layer->out;
    long run = (layer->side * in->channels + 3) / 4 * 4, step = layer->stride * in->channels;
    long own = (layer->row_values ? 0 : image) * out->channels + panel * PANEL;
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
                    sum[r][p] =
                        accumulate_bytes(sum[r][p], a + r * step + k, weight + p * 4 * LANES);
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

// One row of the output; see `direct_row`.
static void bytes_row(const Layer *layer, long image, long y, Element *row, long width) {
    long channels = layer->out->channels, groups = (width + ROWS - 1) / ROWS;
    float unit = layer->row_values ? image_peak(layer, layer->in, image) / 255 : 1;
    for (long panel = 0; panel < channels / PANEL; panel++) {
        for (long group = 0; group < groups; group++) {
            long x = group * width / groups, rows = (group + 1) * width / groups - x;
            Element *to = row + x * channels + panel * PANEL;
            WITH_CONSTANT_ROWS(rows, bytes_block(layer, unit, N, image, y, x, panel, to))
        }
    }
}

#endif
