// What the extension offers to Python, as a table that each instruction set fills.
#pragma once

#include "../vectors/array.h"

namespace layerkit {

// An Array that is not there has no rows.  A clock has the seed, the number of the pass, and whether
// to sample.
struct Kernels {
    const char* name;
    int vector_bytes;
    const char* activations;  // their names, in the order of their numbers

#define KERNEL(name, ...) void (*name)(__VA_ARGS__);
#include "list.h"
#undef KERNEL
};

extern const Kernels baseline_kernels;
#if defined(__x86_64__)
extern const Kernels avx2_kernels, avx512_kernels;
#endif

}  // namespace layerkit
