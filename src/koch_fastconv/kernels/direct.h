// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
//
// Convolutions of any side as sums of matrix products: the first one and the 1x1 shortcuts, for
// which Winograd's way saves nothing.
//
// The pixels under one row of the kernel lie side by side in a map, so each row of the kernel is
// one product of a run of side x channels values with its weights:
//
//   weight (outputs / PANEL, side, side x inputs, PANEL); GROUP values of the run side by side

#pragma once

#include "vector.h"

INLINE long outputs_of(const Layer *layer, long inputs) {
    return (inputs + 2 * layer->pad - layer->side) / layer->stride + 1;
}

// `rows` neighbouring pixels of one panel.
INLINE void direct_block(const Layer *layer, long rows, long image, long y, long x, long panel,
                         Element *to) {
    const Map *in = layer->in, *out = layer->out;
    // an odd run takes one more value in, times zero
    long run = (layer->side * in->channels + GROUP - 1) / GROUP * GROUP;
    long size = layer->side * run * PANEL;
    long row = y * layer->stride - layer->pad, column = x * layer->stride - layer->pad;
    const Element *a = pixel(in, image, row, column);
    const Element *weight = (const Element *)layer->weight + panel * size;
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

// One row of the output, `width` long, in blocks of about equal width: seven pixels are 3 and 4,
// not 6 and 1, because a block of one pixel loads as many weights as one of six.
static void direct_row(const Layer *layer, long image, long y, Element *row, long width) {
    long channels = layer->out->channels, groups = (width + ROWS - 1) / ROWS;
    for (long panel = 0; panel < channels / PANEL; panel++) {
        for (long group = 0; group < groups; group++) {
            long x = group * width / groups, rows = (group + 1) * width / groups - x;
            Element *to = row + x * channels + panel * PANEL;
            WITH_CONSTANT_ROWS(rows, direct_block(layer, N, image, y, x, panel, to))
        }
    }
}
