// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
//
// Convolutions of a ResNet for CPUs; `native.py` compiles this file and drives it.
//
// In float32, or with -DBF16 in bfloat16: maps and factors have 8 bits then, sums and Winograd's
// transformations remain in float32.
//
// 3x3 convolutions are those of `winograd.h`, all others those of `direct.h`.

#include "direct.h"
#include "resnet.h"
#include "winograd.h"

#include <pthread.h>
#include <sched.h>

enum { IN_GROUP = 16, POOLED = 20 };  // channels normalised together; rows pooled in one go
static const double EPSILON = 1e-5;

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

// -- pictures and pooling -------------------------------------------------------------------

// `count` values 0..255, floats or bytes, to the network's scale.
INLINE void scaled(const void *from, long are_bytes, long count, const float *scale,
                   const float *shift, Element *to) {
    for (long i = 0; i < count; i += LANES) {
        Vec value = are_bytes ? widen_bytes((const unsigned char *)from + i)
                              : load((const float *)from + i);
        narrow(to + i, value * load(scale + i) + load(shift + i));
    }
}

// Pieces: rows. `side` says whether the values are bytes.
static void picture(const Layer *layer, long piece) {
    const Map *out = layer->out;
    long image = piece / out->height, channels = out->channels, size = out->width * channels;
    long period = channels * LANES, width = layer->side ? 1 : sizeof(float), i = 0;
    float scale[period], shift[period];
    for (long k = 0; k < period; k++) {
        scale[k] = layer->scale[image * channels + k % channels];
        shift[k] = layer->bias[image * channels + k % channels];
    }
    const char *from = (const char *)layer->in->data + piece * size * width;
    Element *to = pixel(out, image, piece % out->height, 0);
    for (; i + period <= size; i += period) {
        scaled(from + i * width, layer->side, period, scale, shift, to + i);
    }
    float rest[period];
    Element done[period];
    __builtin_memset(rest, 0, sizeof rest);
    __builtin_memcpy(rest, from + i * width, (size - i) * width);
    scaled(rest, layer->side, period, scale, shift, done);
    __builtin_memcpy(to + i, done, (size - i) * sizeof(Element));
}

// One row: the largest of 3x3, stride 2. The input's rows begin left of the first column; zeros
// around are neutral, for what is pooled has passed a ReLU.
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

static long chunks_of(const Map *map) { return (map->height + POOLED - 1) / POOLED; }

// A convolution and the pooling of its rows, which do not leave the cache. Pieces: POOLED rows of
// the output.
static void pooled(const Layer *layer, long piece, float *scratch) {
    const Map *out = layer->out;
    long height = outputs_of(layer, layer->in->height), width = outputs_of(layer, layer->in->width);
    long image = piece / chunks_of(out), first = piece % chunks_of(out) * POOLED;
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
            narrow(to + c, layer->relu ? relu(value) : value);
        }
    }
}

static long pieces_of(const Layer *layer, const Program *program) {
    if (layer->kind == WINOGRAD || layer->kind == WINOGRAD_BYTES) {
        return blocks_of(layer, program->images, program->threads);
    }
    return program->images * (layer->pooled ? chunks_of(layer->out) : layer->out->height);
}

static void *work(void *argument) {
    const Worker *worker = argument;
    Program *program = worker->program;
    float *scratch = program->scratch + worker->index * program->scratch_size;
    for (long l = 0; l < program->count; l++) {
        const Layer *layer = program->layers + l;
        long pieces = pieces_of(layer, program), piece;
        while ((piece = __atomic_fetch_add(program->taken + l, 1, __ATOMIC_RELAXED)) < pieces) {
            switch (layer->kind) {
                case PICTURE: picture(layer, piece); break;
                case WINOGRAD:
                case WINOGRAD_BYTES:
                    winograd(layer, piece, program->images, program->threads, scratch);
                    break;
                case POOL: pool(layer, piece); break;
                case MOMENTS: moments(layer, piece); break;
                case NORMALISE: normalise(layer, piece); break;
                case PEAK: peak(layer, piece); break;
                case QUANTISE: quantise(layer, piece); break;
                default: layer->pooled ? pooled(layer, piece, scratch) : convolve(layer, piece);
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
