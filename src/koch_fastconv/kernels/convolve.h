// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
//
// A layer of direct convolution, of numbers or of bytes: row by row, alone or with its pooling.

#pragma once

#include "bytes.h"
#include "direct.h"
#include "pool.h"

// One row of a convolution that a layer asks for, whatever it multiplies.
static void convolve_row(const Layer *layer, long image, long y, Element *row, long width) {
#ifdef BF16
    if (layer->kind == BYTES) {
        bytes_row(layer, image, y, row, width);
        return;
    }
#endif
    direct_row(layer, image, y, row, width);
}

// Pieces: rows of the output.
static void convolve(const Layer *layer, long piece) {
    const Map *out = layer->out;
    long image = piece / out->height, y = piece % out->height;
    convolve_row(layer, image, y, pixel(out, image, y, 0), out->width);
}

// -- with pooling -------------------------------------------------------------------------------

// Rows that one piece of `convolve_and_pool` makes. Neighbouring pieces both compute the row
// between them, so few rows waste work and many leave threads idle at the end.
enum { POOLED = 20 };

static long pooled_pieces(const Map *map) { return (map->height + POOLED - 1) / POOLED; }

// A convolution and the pooling of its rows. The first map of a network is by far the largest; with
// three rows of it at a time it never leaves the cache. Pieces: POOLED rows of the output.
static void convolve_and_pool(const Layer *layer, long piece, float *scratch) {
    const Map *out = layer->out;
    long height = outputs_of(layer, layer->in->height), width = outputs_of(layer, layer->in->width);
    long image = piece / pooled_pieces(out), first = piece % pooled_pieces(out) * POOLED;
    long last = first + POOLED < out->height ? first + POOLED : out->height;
    long pitch = (width + 2) * out->channels, row = first ? 2 * first - 1 : 0;
    Element *ring = (Element *)scratch;  // row r is at r % 3
    __builtin_memset(ring, 0, 3 * pitch * sizeof *ring);
    for (long y = first; y < last; y++) {
        for (; row <= 2 * y + 1; row++) {
            Element *to = ring + row % 3 * pitch + out->channels;
            if (row < height) {
                convolve_row(layer, image, row, to, width);
            } else {
                __builtin_memset(to, 0, width * out->channels * sizeof *to);
            }
        }
        const Element *rows[3];
        for (long i = 0; i < 3; i++) rows[i] = ring + (2 * y + 2 + i) % 3 * pitch;
        pool_row(rows, out->channels, pixel(out, image, y, 0), out->width);
    }
}
