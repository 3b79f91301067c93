// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
//
// Chooses the kernels for the processor that this runs on. One build serves all x86-64 machines: it
// may run on another machine than it was built on (a container, a disk that moves, a cluster).
//
// HAVE_... are set by CMake for the variants that the compiler could build.

#include "koch_fastconv.h"

#ifdef __x86_64__
#define CAN(feature) __builtin_cpu_supports(feature)

#ifdef HAVE_avx512_bf16
extern const Kernels avx512_bf16;
// Not with AMX, which multiplies bfloat16 in tiles: OpenVINO uses it, and is faster then.
static int can_avx512_bf16(void) {
    return CAN("avx512f") && CAN("avx512bw") && CAN("avx512vl") && CAN("avx512dq") &&
           CAN("avx512vnni") && CAN("avx512bf16") && !CAN("amx-bf16");
}
#endif

#ifdef HAVE_avx512_f32
extern const Kernels avx512_f32;
static int can_avx512_f32(void) {
    return CAN("avx512f") && CAN("avx512bw") && CAN("avx512vl") && CAN("avx512dq");
}
#endif

#ifdef HAVE_avx2_f32
extern const Kernels avx2_f32;
static int can_avx2_f32(void) { return CAN("avx2") && CAN("fma"); }
#endif

// Without FMA there is nothing: OpenVINO's own convolutions are faster with so few registers.

#else
extern const Kernels generic_f32;  // 64-bit ARM and others: what the compiler takes as given
#endif

__attribute__((visibility("default"))) const Kernels *const *koch_fastconv_kernels(void) {
    static const Kernels *found[4];
    long count = 0;
#ifdef __x86_64__
    __builtin_cpu_init();
#ifdef HAVE_avx512_bf16
    if (can_avx512_bf16()) found[count++] = &avx512_bf16;
#endif
#ifdef HAVE_avx512_f32
    if (can_avx512_f32()) found[count++] = &avx512_f32;
#endif
#ifdef HAVE_avx2_f32
    if (can_avx2_f32()) found[count++] = &avx2_f32;
#endif
#else
    found[count++] = &generic_f32;
#endif
    found[count] = 0;
    return found;
}
