// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
//
// All kernels for one kind of processor, and the run of a network through them.
//
// CMake compiles this file once for each variant, with the processor's flags, -DVARIANT=NAME and
// perhaps -DBF16. The kernels are static functions in headers, so that each variant has its own and
// exports one table only. With -DBF16 maps and weights are bfloat16: 8 bits of each number. Sums
// and Winograd's transformations remain in float32.

#include "convolve.h"
#include "group_norm.h"
#include "image.h"
#include "winograd.h"

#include <pthread.h>
#include <sched.h>

typedef struct {
    Program *program;
    long index, stands_for;  // itself and the threads that could not be started
} Worker;

static long pieces_of(const Layer *layer, const Program *program) {
    if (layer->kind == WINOGRAD || layer->kind == WINOGRAD_BYTES) {
        return blocks_of(layer, program->images, program->threads);
    }
    return program->images * (layer->pooled ? pooled_pieces(layer->out) : layer->out->height);
}

static void do_piece(const Layer *layer, long piece, const Program *program, float *scratch) {
    switch (layer->kind) {
        case SCALE_FLOATS:
        case SCALE_BYTES: scale_image(layer, piece); break;
        case POOL: pool(layer, piece); break;
        case GROUP_SUMS: group_sums(layer, piece); break;
        case GROUP_NORMALISE: group_normalise(layer, piece); break;
#ifdef BF16
        case ROW_PEAKS: row_peaks(layer, piece); break;
        case QUANTISE: quantise(layer, piece); break;
#endif
        case WINOGRAD:
        case WINOGRAD_BYTES:
            winograd(layer, piece, program->images, program->threads, scratch);
            break;
        default:
            if (layer->pooled) {
                convolve_and_pool(layer, piece, scratch);
            } else {
                convolve(layer, piece);
            }
    }
}

// What each thread does. Layers are short (the twenty of a ResNet-18 take 30 to 110 ms for two
// images of 640x480), so waiting threads spin a while before they let others run.
static void *work(void *argument) {
    const Worker *worker = argument;
    Program *program = worker->program;
    float *scratch = program->scratch + worker->index * program->scratch_size;
    for (long l = 0; l < program->count; l++) {
        const Layer *layer = program->layers + l;
        long pieces = pieces_of(layer, program), piece;
        while ((piece = __atomic_fetch_add(program->taken + l, 1, __ATOMIC_RELAXED)) < pieces) {
            do_piece(layer, piece, program, scratch);
        }
        __atomic_fetch_add(&program->arrived, worker->stands_for, __ATOMIC_ACQ_REL);
        long all = (l + 1) * program->threads, spins = 0;
        while (__atomic_load_n(&program->arrived, __ATOMIC_ACQUIRE) < all) {
            if (++spins > 2000) sched_yield();
        }
    }
    return 0;
}

// Run all layers on the first `images` of each map. Where a thread cannot be started, the caller
// stands for it: slower, but never stuck.
static void run(Program *program) {
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

#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)
const Kernels VARIANT = {
    .name = TEXT(VARIANT),
#ifdef BF16
    .precision = PRECISION_BF16,
#else
    .precision = PRECISION_F32,
#endif
    .panel = PANEL,
    .channels_of_group = IN_GROUP,
    .epsilon = EPSILON,
    .run = run,
};
