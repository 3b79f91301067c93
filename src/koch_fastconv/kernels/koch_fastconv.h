// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
//
// The interface of the library: a network is a list of layers that read and write maps.
//
// Python reads this very file with cffi, so no structure and no enumeration is written twice. It
// must therefore stay plain C without includes and macros.

#pragma once

// Maps of a network lie as (image, row, column, channel), with a border of zeros around each image,
// so that a convolution reads its neighbours without asking where the image ends.
typedef struct {
    void *data;  // elements of the precision; bytes or floats of raw images; bytes of QUANTISE
    long height, width, channels, border;
    long rows, columns;  // as they lie in memory, with the border
} Map;

// What a layer does. `weight`, `bias` and `scale` are packed by Python (weights.py) as the kernel's
// file says; `row_values` are numbers that one layer writes for each row and a later one reads.
//
//   kind              file          in -> out                     bias, scale       row_values
//   SCALE_FLOATS      image.h       raw floats 0..255 -> map      of each image     -
//   SCALE_BYTES       image.h       raw bytes -> map              of each image     -
//   POOL              pool.h        map -> map, 3x3, stride 2     -                 -
//   GROUP_SUMS        group_norm.h  map ->                        -                 writes sums
//   GROUP_NORMALISE   group_norm.h  map -> map                    of each channel   reads sums
//   DIRECT            direct.h      map -> map                    bias              -
//   WINOGRAD          winograd.h    map -> map, 3x3               bias              -
//   and with bfloat16 only, for int8:
//   WINOGRAD_BYTES    winograd.h    map -> map, 3x3, rounded      bias              -
//   ROW_PEAKS         bytes.h       map ->                        -                 writes peaks
//   QUANTISE          bytes.h       map -> bytes                  -                 reads peaks
//   BYTES             bytes.h       bytes of QUANTISE -> map      of each channel   reads peaks
//                                   or raw bytes -> map           of each image     none
enum LayerKind {
    SCALE_FLOATS, SCALE_BYTES, POOL, GROUP_SUMS, GROUP_NORMALISE, DIRECT, WINOGRAD,
    WINOGRAD_BYTES, ROW_PEAKS, QUANTISE, BYTES
};

typedef struct {
    long kind;  // enum LayerKind
    const Map *in, *out;
    const Map *residual;  // added before the ReLU; may be `out` itself; or none
    const void *weight;
    const float *bias, *scale;
    double *row_values;
    long side, stride, pad;  // of a convolution
    long relu;               // ends with a ReLU
    long pooled;             // a direct convolution that does the work of POOL too (convolve.h)
} Layer;

// One run of a network. Threads take pieces of a layer (some rows, some tiles) until none is left,
// and wait for each other after each layer.
typedef struct {
    const Layer *layers;
    long count;         // of layers
    long images;        // to compute of each map
    long threads;       // the caller's included
    long scratch_size;  // floats of each thread
    float *scratch;
    long *taken;  // by layer: pieces handed out
    long arrived; // threads that have finished, over all layers
} Program;

enum Precision { PRECISION_F32, PRECISION_BF16 };

// The same code, compiled for one kind of processor and one precision of maps and weights.
typedef struct {
    const char *name;
    long precision;        // enum Precision
    long panel;            // output channels that the weights of a convolution are packed by
    long channels_of_group;  // that GROUP_NORMALISE takes together
    double epsilon;        // that it adds to the variance
    void (*run)(Program *program);
} Kernels;

// The kernels that are worth using on this processor, the fastest of each precision first; ends
// with a null pointer.
const Kernels *const *koch_fastconv_kernels(void);
