// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
//
// 3x3 convolutions with stride 1 by Winograd's minimal filtering F(4x4, 3x3): 36 instead of 144
// multiplications per 16 outputs. Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural
// Networks", section 4.3.

#pragma once

#include "resnet.h"

INLINE void forward_line(const Vec x[PATCH], Vec y[PATCH]) {
    Vec even = x[4] - 4 * x[2], odd = x[3] - 4 * x[1], e = x[4] - x[2], o = 2 * (x[3] - x[1]);
    y[0] = 4 * x[0] - 5 * x[2] + x[4];
    y[1] = even + odd, y[2] = even - odd;
    y[3] = e + o, y[4] = e - o;
    y[5] = 4 * x[1] - 5 * x[3] + x[5];
}

INLINE void backward_line(const Vec m[PATCH], Vec y[TILE]) {
    Vec a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
    y[0] = m[0] + a + c, y[1] = b + 2 * d, y[2] = a + 4 * c, y[3] = b + 8 * d + m[5];
}

typedef struct {
    long image, y, x;  // of its first output
} Tile;

// 6x6 patches of all channels to their 36 frequencies, `step` elements apart.
static void forward(const Map *in, const Tile *tiles, long count, Element *to, long step) {
    long channels = in->channels, pitch = in->columns * channels;
    for (long t = 0; t < count; t++, to += channels) {
        const Element *from = pixel(in, tiles[t].image, tiles[t].y - 1, tiles[t].x - 1);
        for (long c = 0; c < channels; c += LANES) {
            Vec half[PATCH][PATCH], line[PATCH], out[PATCH];  // half: [column][frequency]
            UNROLL for (long x = 0; x < PATCH; x++) {
                UNROLL for (long y = 0; y < PATCH; y++) {
                    line[y] = widen(from + y * pitch + x * channels + c);
                }
                forward_line(line, half[x]);
            }
            UNROLL for (long y = 0; y < PATCH; y++) {
                UNROLL for (long x = 0; x < PATCH; x++) line[x] = half[x][y];
                forward_line(line, out);
                UNROLL for (long x = 0; x < PATCH; x++) {
                    narrow(to + (y * PATCH + x) * step + c, out[x]);
                }
            }
        }
    }
}

// 36 frequencies to the 4x4 outputs of one tile, of those that exist.
static void backward(const Layer *layer, const float *from, long step, const Tile *tile) {
    const Map *out = layer->out;
    long height = out->height - tile->y < TILE ? out->height - tile->y : TILE;
    long width = out->width - tile->x < TILE ? out->width - tile->x : TILE;
    for (long c = 0; c < out->channels; c += LANES) {
        Vec half[PATCH][TILE], line[PATCH], done[TILE], bias = load(layer->bias + c);
        UNROLL for (long x = 0; x < PATCH; x++) {
            UNROLL for (long y = 0; y < PATCH; y++) {
                line[y] = load(from + (y * PATCH + x) * step + c);
            }
            backward_line(line, half[x]);
        }
        UNROLL for (long y = 0; y < TILE; y++) {
            if (y >= height) break;
            UNROLL for (long x = 0; x < PATCH; x++) line[x] = half[x][y];
            backward_line(line, done);
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

INLINE void frequency_rows(long rows, const Element *a, long inputs, const Element *panel,
                           const Element *ahead, float *to, long outputs) {
    Vec sum[ROWS][PER_PANEL];
    UNROLL for (long r = 0; r < rows; r++) {
        UNROLL for (long p = 0; p < PER_PANEL; p++) sum[r][p] = (Vec){0};
    }
    multiply(rows, a, inputs, inputs, panel, ahead, sum);
    UNROLL for (long r = 0; r < rows; r++) {
        UNROLL for (long p = 0; p < PER_PANEL; p++) store(to + r * outputs + p * LANES, sum[r][p]);
    }
}

// (tiles, inputs) times (inputs, outputs), for one frequency.
static void product(long tiles, const Element *a, long inputs, const Element *weight, float *to,
                    long outputs) {
    long groups = (tiles + ROWS - 1) / ROWS;
    for (long panel = 0; panel < outputs; panel += PANEL, weight += inputs * PANEL) {
        for (long group = 0; group < groups; group++) {
            long t = group * tiles / groups, rows = (group + 1) * tiles / groups - t;
            const Element *from = a + t * inputs;
            // each group fetches its share of the next panel
            const Element *ahead = weight + inputs * PANEL;
            ahead += group * (inputs / GROUP) * (CACHE_LINE / sizeof *ahead);
            float *place = to + t * outputs + panel;
            switch (rows) {
                case 1: frequency_rows(1, from, inputs, weight, ahead, place, outputs); break;
                case 2: frequency_rows(2, from, inputs, weight, ahead, place, outputs); break;
                case 3: frequency_rows(3, from, inputs, weight, ahead, place, outputs); break;
                case 4: frequency_rows(4, from, inputs, weight, ahead, place, outputs); break;
                case 5: frequency_rows(5, from, inputs, weight, ahead, place, outputs); break;
                default: frequency_rows(6, from, inputs, weight, ahead, place, outputs);
            }
        }
    }
}

// Pieces: blocks of tiles, about equal, as many for each thread.
static long blocks_of(const Map *map, long images, long threads) {
    long tiles = images * ((map->height + TILE - 1) / TILE) * ((map->width + TILE - 1) / TILE);
    long blocks = (tiles + MOST_TILES - 1) / MOST_TILES;
    return (blocks + threads - 1) / threads * threads;
}

static void winograd(const Layer *layer, long piece, long images, long threads, float *scratch) {
    const Map *in = layer->in, *out = layer->out;
    long across = (out->width + TILE - 1) / TILE, down = (out->height + TILE - 1) / TILE;
    long total = images * across * down, blocks = blocks_of(out, images, threads);
    long first = piece * total / blocks, count = (piece + 1) * total / blocks - first;
    long step_in = count * in->channels, step_out = count * out->channels;
    Element *a = (Element *)scratch;
    float *product_of = scratch + PATCH * PATCH * step_in;
    Tile tiles[MOST_TILES];
    for (long t = 0; t < count; t++) {
        long tile = first + t, x = tile % across, y = tile / across;
        tiles[t] = (Tile){y / down, y % down * TILE, x * TILE};
    }
    forward(in, tiles, count, a, step_in);
    for (long f = 0; f < PATCH * PATCH; f++) {
        product(count, a + f * step_in, in->channels,
                layer->weight + f * in->channels * out->channels, product_of + f * step_out,
                out->channels);
    }
    for (long t = 0; t < count; t++) {
        backward(layer, product_of + t * out->channels, step_out, tiles + t);
    }
}
