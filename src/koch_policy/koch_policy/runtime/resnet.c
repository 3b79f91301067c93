// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
//
// Convolutions of a ResNet for CPUs; `native.py` compiles this file and drives it.
//
// In float32, or with -DBF16 in bfloat16: maps and factors have 8 bits then, sums and Winograd's
// transformations remain in float32.
//
// 3x3 convolutions with stride 1 are computed by Winograd's minimal filtering F(4x4, 3x3): 36
// instead of 144 multiplications per 16 outputs. Lavin and Gray 2015, "Fast Algorithms for
// Convolutional Neural Networks", section 4.3. All others are sums of matrix products.

#include "resnet.h"

#include <pthread.h>
#include <sched.h>

enum { IN_GROUP = 16 };  // channels that are normalised together
static const double EPSILON = 1e-5;

enum { PICTURE, DIRECT, WINOGRAD, POOL, MOMENTS, NORMALISE };

typedef struct {
    long kind;
    const Map *in, *out, *residual;  // added before the ReLU; may be `out` itself
    const Element *weight;
    const float *bias, *scale;  // scale: of PICTURE and NORMALISE
    double *moments;            // of MOMENTS and NORMALISE
    long side, stride, pad, relu;
} Layer;

typedef struct {
    const Layer *layers;
    long count, images, threads, scratch_size;  // floats per thread
    float *scratch;
    long *taken;  // per layer: pieces of work handed out
    long arrived;
} Program;

typedef struct {
    Program *program;
    long index, stands_for;  // itself and the threads that could not be started
} Worker;

long koch_panel(void) { return PANEL; }

// -- sums of matrix products --------------------------------------------------------------------

INLINE void direct_pixels(const Layer *layer, long rows, long image, long y, long x, long panel) {
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
        multiply(rows, a, layer->stride * in->channels, run, weight, sum);
        a += in->columns * in->channels;
        weight += run * PANEL;
    }
    Element *to = pixel(out, image, y, x) + panel * PANEL;
    UNROLL for (long r = 0; r < rows; r++) {
        UNROLL for (long p = 0; p < PER_PANEL; p++) {
            Vec value = layer->relu ? larger(sum[r][p], (Vec){0}) : sum[r][p];
            narrow(to + r * out->channels + p * LANES, value);
        }
    }
}

// Pieces: rows of the output.
static void direct(const Layer *layer, long piece) {
    const Map *out = layer->out;
    long image = piece / out->height, y = piece % out->height;
    long groups = (out->width + ROWS - 1) / ROWS;
    for (long panel = 0; panel < out->channels / PANEL; panel++) {
        for (long group = 0; group < groups; group++) {
            long x = group * out->width / groups, rows = (group + 1) * out->width / groups - x;
            switch (rows) {
                case 1: direct_pixels(layer, 1, image, y, x, panel); break;
                case 2: direct_pixels(layer, 2, image, y, x, panel); break;
                case 3: direct_pixels(layer, 3, image, y, x, panel); break;
                case 4: direct_pixels(layer, 4, image, y, x, panel); break;
                case 5: direct_pixels(layer, 5, image, y, x, panel); break;
                default: direct_pixels(layer, 6, image, y, x, panel);
            }
        }
    }
}

// -- Winograd -----------------------------------------------------------------------------------

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

// One 6x6 patch of all channels to its 36 frequencies, `step` floats apart.
static void forward(const Element *from, long pitch, long channels, Element *to, long step) {
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

// 36 frequencies to the 4x4 outputs of one tile, of which `height` x `width` exist.
static void backward(const Layer *layer, const float *from, long step, long image, long top,
                     long left) {
    const Map *out = layer->out;
    long height = out->height - top < TILE ? out->height - top : TILE;
    long width = out->width - left < TILE ? out->width - left : TILE;
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
            Element *to = pixel(out, image, top + y, left) + c;
            const Element *more = 0;
            if (layer->residual) more = pixel(layer->residual, image, top + y, left) + c;
            UNROLL for (long x = 0; x < TILE; x++) {
                if (x >= width) break;
                Vec value = done[x] + bias;
                if (more) value += widen(more + x * out->channels);
                narrow(to + x * out->channels, layer->relu ? larger(value, (Vec){0}) : value);
            }
        }
    }
}

INLINE void frequency_rows(long rows, const Element *a, long inputs, const Element *panel,
                           float *to, long outputs) {
    Vec sum[ROWS][PER_PANEL];
    UNROLL for (long r = 0; r < rows; r++) {
        UNROLL for (long p = 0; p < PER_PANEL; p++) sum[r][p] = (Vec){0};
    }
    multiply(rows, a, inputs, inputs, panel, sum);
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
            float *place = to + t * outputs + panel;
            switch (rows) {
                case 1: frequency_rows(1, from, inputs, weight, place, outputs); break;
                case 2: frequency_rows(2, from, inputs, weight, place, outputs); break;
                case 3: frequency_rows(3, from, inputs, weight, place, outputs); break;
                case 4: frequency_rows(4, from, inputs, weight, place, outputs); break;
                case 5: frequency_rows(5, from, inputs, weight, place, outputs); break;
                default: frequency_rows(6, from, inputs, weight, place, outputs);
            }
        }
    }
}

static long tiles_of(const Map *map, long images) {
    return images * ((map->height + TILE - 1) / TILE) * ((map->width + TILE - 1) / TILE);
}

// Pieces: blocks of tiles, about equal, as many for each thread.
static long blocks_of(const Map *map, const Program *program) {
    long blocks = (tiles_of(map, program->images) + MOST_TILES - 1) / MOST_TILES;
    return (blocks + program->threads - 1) / program->threads * program->threads;
}

static void winograd(const Layer *layer, long piece, const Program *program, float *scratch) {
    const Map *in = layer->in, *out = layer->out;
    long total = tiles_of(out, program->images), blocks = blocks_of(out, program);
    long first = piece * total / blocks;
    long tiles = (piece + 1) * total / blocks - first;
    long across = (out->width + TILE - 1) / TILE, down = (out->height + TILE - 1) / TILE;
    long step_in = tiles * in->channels, step_out = tiles * out->channels;
    Element *a = (Element *)scratch;
    float *product_of = scratch + PATCH * PATCH * step_in;
    for (long t = 0; t < tiles; t++) {
        long tile = first + t, x = tile % across, y = tile / across % down;
        const Element *from = pixel(in, tile / across / down, y * TILE - 1, x * TILE - 1);
        forward(from, in->columns * in->channels, in->channels, a + t * in->channels, step_in);
    }
    for (long f = 0; f < PATCH * PATCH; f++) {
        product(tiles, a + f * step_in, in->channels,
                layer->weight + f * in->channels * out->channels, product_of + f * step_out,
                out->channels);
    }
    for (long t = 0; t < tiles; t++) {
        long tile = first + t, x = tile % across, y = tile / across % down;
        const float *from = product_of + t * out->channels;
        backward(layer, from, step_out, tile / across / down, y * TILE, x * TILE);
    }
}

// -- pictures and pooling -------------------------------------------------------------------

// Pieces: rows. Values 0..255 to the network's scale.
static void picture(const Layer *layer, long piece) {
    const Map *out = layer->out;
    long image = piece / out->height, channels = out->channels, size = out->width * channels;
    const float *from = (const float *)layer->in->data + piece * size;
    Element *to = pixel(out, image, piece % out->height, 0);
    for (long i = 0; i < size; i += channels) {
        for (long c = 0; c < channels; c++) {
            long at = image * channels + c;
            float value = from[i + c] * layer->scale[at] + layer->bias[at];
#ifdef BF16
            unsigned bits;
            __builtin_memcpy(&bits, &value, sizeof bits);
            to[i + c] = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;  // to nearest, ties to even
#else
            to[i + c] = value;
#endif
        }
    }
}

// Pieces: rows of the output. Largest of 3x3, stride 2; after a ReLU, zeros around are neutral.
static void pool(const Layer *layer, long piece) {
    const Map *in = layer->in, *out = layer->out;
    long image = piece / out->height, y = piece % out->height;
    long pitch = in->columns * in->channels;
    for (long x = 0; x < out->width; x++) {
        const Element *from = pixel(in, image, 2 * y - 1, 2 * x - 1);
        Element *to = pixel(out, image, y, x);
        for (long c = 0; c < out->channels; c += LANES) {
            Vec best = {0};
            UNROLL for (long i = 0; i < 9; i++) {
                best = larger(best, widen(from + i / 3 * pitch + i % 3 * in->channels + c));
            }
            narrow(to + c, best);
        }
    }
}

// -- group normalisation ------------------------------------------------------------------------

INLINE double total(Doubles values) {
    double sum = 0;
    for (long i = 0; i < LANES / 2; i++) sum += values[i];
    return sum;
}

// Pieces: rows. Sum and sum of squares of each group in the row, for `normalise`.
static void moments(const Layer *layer, long piece) {
    const Map *in = layer->in;
    long groups = in->channels / IN_GROUP;
    double *to = layer->moments + piece * groups * 2;
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

// Pieces: rows. Wu and He 2018, "Group Normalization", equations 1 and 6.
static void normalise(const Layer *layer, long piece) {
    const Map *in = layer->in, *out = layer->out;
    long channels = in->channels, groups = channels / IN_GROUP;
    long image = piece / in->height, y = piece % in->height;
    float scale[channels], shift[channels];
    for (long g = 0; g < groups; g++) {
        const double *row = layer->moments + (image * in->height * groups + g) * 2;
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
            narrow(to + c, layer->relu ? larger(value, (Vec){0}) : value);
        }
    }
}

static void *work(void *argument) {
    const Worker *worker = argument;
    Program *program = worker->program;
    float *scratch = program->scratch + worker->index * program->scratch_size;
    for (long l = 0; l < program->count; l++) {
        const Layer *layer = program->layers + l;
        long pieces = program->images * layer->out->height, piece;
        if (layer->kind == WINOGRAD) pieces = blocks_of(layer->out, program);
        while ((piece = __atomic_fetch_add(program->taken + l, 1, __ATOMIC_RELAXED)) < pieces) {
            switch (layer->kind) {
                case PICTURE: picture(layer, piece); break;
                case DIRECT: direct(layer, piece); break;
                case WINOGRAD: winograd(layer, piece, program, scratch); break;
                case POOL: pool(layer, piece); break;
                case MOMENTS: moments(layer, piece); break;
                default: normalise(layer, piece);
            }
        }
        __atomic_fetch_add(&program->arrived, worker->stands_for, __ATOMIC_ACQ_REL);
        long all = (l + 1) * program->threads, spins = 0;
        while (__atomic_load_n(&program->arrived, __ATOMIC_ACQUIRE) < all) {
            if (++spins > 2000) sched_yield();
        }
    }
    return 0;
}

// Run all layers on the first `images` of each map.
void koch_run(Program *program) {
    Worker workers[program->threads];
    pthread_t threads[program->threads];
    long started = 1;
    program->arrived = 0;
    for (long l = 0; l < program->count; l++) program->taken[l] = 0;
    for (; started < program->threads; started++) {
        workers[started] = (Worker){program, started, 1};
        if (pthread_create(threads + started, 0, work, workers + started)) break;
    }
    workers[0] = (Worker){program, 0, 1 + program->threads - started};
    work(workers);
    for (long i = 1; i < started; i++) pthread_join(threads[i], 0);
}
