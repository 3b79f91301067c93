// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
//
// Group normalisation. Wu and He 2018, "Group Normalization", equations 1 and 6.
//
// Two passes: sums of each row in any order by any thread, then one pass that scales, adds the
// shortcut and applies the ReLU. Sums are doubles: the variance is a difference of two large
// numbers where the mean is far from zero.

#pragma once

#include "vector.h"

enum { IN_GROUP = 16 };  // channels normalised together
static const double EPSILON = 1e-5;

INLINE double total(Doubles values) {
    double sum = 0;
    for (long i = 0; i < LANES / 2; i++) sum += values[i];
    return sum;
}

// Pieces: rows. Writes sum and sum of squares of each group in the row.
static void group_sums(const Layer *layer, long piece) {
    const Map *in = layer->in;
    long groups = in->channels / IN_GROUP;
    double *to = layer->row_values + piece * groups * 2;
    for (long g = 0; g < groups; g++, to += 2) {
        const Element *from = pixel(in, piece / in->height, piece % in->height, 0) + g * IN_GROUP;
        Doubles sum[2] = {0}, squares[2] = {0};
        for (long x = 0; x < in->width; x++, from += in->channels) {
            UNROLL for (long c = 0; c < IN_GROUP; c += LANES) {
                Vec value = widen(from + c);
                HalfVec halves[2];
                __builtin_memcpy(halves, &value, sizeof value);
                UNROLL for (long h = 0; h < 2; h++) {
                    Doubles wide = __builtin_convertvector(halves[h], Doubles);
                    sum[h] += wide, squares[h] += wide * wide;
                }
            }
        }
        to[0] = total(sum[0] + sum[1]), to[1] = total(squares[0] + squares[1]);
    }
}

// Pieces: rows. Each adds the sums of all rows up for itself, which saves another wait for all
// threads.
static void group_normalise(const Layer *layer, long piece) {
    const Map *in = layer->in, *out = layer->out;
    long channels = in->channels, groups = channels / IN_GROUP;
    long image = piece / in->height, y = piece % in->height;
    float scale[channels], shift[channels];
    for (long g = 0; g < groups; g++) {
        const double *row = layer->row_values + (image * in->height * groups + g) * 2;
        double sum = 0, squares = 0, count = (double)in->height * in->width * IN_GROUP;
        for (long i = 0; i < in->height; i++, row += groups * 2) sum += row[0], squares += row[1];
        double mean = sum / count, variance = squares / count - mean * mean;
        double factor = 1 / __builtin_sqrt((variance < 0 ? 0 : variance) + EPSILON);
        for (long c = g * IN_GROUP; c < (g + 1) * IN_GROUP; c++) {
            scale[c] = layer->scale[c] * factor;
            shift[c] = layer->bias[c] - layer->scale[c] * factor * mean;
        }
    }
    const Element *from = pixel(in, image, y, 0), *more = 0;
    Element *to = pixel(out, image, y, 0);
    if (layer->residual) more = pixel(layer->residual, image, y, 0);
    for (long x = 0; x < in->width; x++, from += channels, to += channels) {
        for (long c = 0; c < channels; c += LANES) {
            Vec value = widen(from + c) * load(scale + c) + load(shift + c);
            if (more) value += widen(more + x * channels + c);
            narrow(to + c, layer->relu ? relu(value) : value);
        }
    }
}
