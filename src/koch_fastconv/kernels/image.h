// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
//
// Raw images to the first map: each channel times a factor plus a shift.

#pragma once

#include "vector.h"

// `count` values 0..255, floats or bytes, to the network's scale.
INLINE void scale_values(const void *from, int are_bytes, long count, const float *scale,
                         const float *shift, Element *to) {
    for (long i = 0; i < count; i += LANES) {
        Vec value = are_bytes ? widen_bytes((const unsigned char *)from + i)
                              : load((const float *)from + i);
        narrow(to + i, value * load(scale + i) + load(shift + i));
    }
}

// Pieces: rows. Three channels do not divide a vector, so factors and shifts are written out for
// LANES pixels: a period after which they repeat at the same place of a vector.
static void scale_image(const Layer *layer, long piece) {
    const Map *out = layer->out;
    int are_bytes = layer->kind == SCALE_BYTES;
    long image = piece / out->height, channels = out->channels, size = out->width * channels;
    long period = channels * LANES, width = are_bytes ? 1 : sizeof(float), i = 0;
    float scale[period], shift[period];
    for (long k = 0; k < period; k++) {
        scale[k] = layer->scale[image * channels + k % channels];
        shift[k] = layer->bias[image * channels + k % channels];
    }
    const char *from = (const char *)layer->in->data + piece * size * width;
    Element *to = pixel(out, image, piece % out->height, 0);
    for (; i + period <= size; i += period) {
        scale_values(from + i * width, are_bytes, period, scale, shift, to + i);
    }
    // What is left of the row goes through a buffer: whole vectors would write into the border.
    float rest[period];
    Element done[period];
    __builtin_memset(rest, 0, sizeof rest);
    __builtin_memcpy(rest, from + i * width, (size - i) * width);
    scale_values(rest, are_bytes, period, scale, shift, done);
    __builtin_memcpy(to + i, done, (size - i) * sizeof(Element));
}
