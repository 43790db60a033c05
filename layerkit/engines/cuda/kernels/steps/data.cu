// Data layers.  NUMBER is the type of what an array holds, OUT that of a top: real, or i64.
#include "../device.h"
#include "../../../formulas/philox.h"

// A random word above the number of each row: sorting these puts the rows in random order, those of
// equal words in their own.
KERNEL order_keys(i64 count, u64 seed, u32 stream, i64 epoch, i64 shuffle, u64* keys)
{
    i64 block = place();
    if (4 * block >= count) return;
    u32 words[4];
    philox_block((u32)block, seed, stream, (u64)epoch, words);
    for (i64 k = 0; k < 4 && 4 * block + k < count; ++k)
        keys[4 * block + k] = (shuffle ? (u64)words[k] << 32 : 0) | (u64)(4 * block + k);
}

#ifdef NUMBER

#define CHUNK 1024  // numbers of an example that a block of threads goes through

// The next examples of the data layer number `source`: by the sorted keys of a few epochs (`slots`
// of them) from an array of all examples, or without keys from one of the two batches in `from`.
// Each is turned by one of the symmetries in `table`, unless that is 0, and scaled.
KERNEL gather(
    i64 size, i64 pieces, i64 rows, const NUMBER* from, const u64* keys, i64 count, i64 repeat,
    i64 slots, i64 source, real scale, const i64* table, i64 pixels, u64 seed, u32 stream,
    const i64* clock, OUT* out)
{
    __shared__ i64 example;
    __shared__ u32 turn;
    u32 row = blockIdx.x / (u32)pieces, start = blockIdx.x % (u32)pieces * CHUNK;
    u32 stop = start + CHUNK < (u32)size ? start + CHUNK : (u32)size;
    if (clock[HALTED]) return;
    if (threadIdx.x == 0) {
        example = (clock[PASS] & 1) * rows + row;
        if (keys) {
            i64 position = clock[POSITION + source] + row;
            i64 slot = position / count % slots, rank = position % count / repeat;
            example = (u32)keys[slot * (count / repeat) + rank];
        }
        if (table) {
            u32 words[4];
            philox_block(row / 4, seed, stream, (u64)clock[PASS], words);
            turn = words[row % 4] & 7;
        }
    }
    __syncthreads();
    const NUMBER* image = from + example * size;
    OUT* target = out + row * size;
    for (u32 j = start + threadIdx.x; j < stop; j += THREADS) {
        u32 k = j;
        if (table) {
            u32 pixel = j % (u32)pixels;
            k = j - pixel + (u32)table[turn * (u32)pixels + pixel];
        }
        target[j] = (OUT)image[k] * (OUT)scale;
    }
}

#endif
