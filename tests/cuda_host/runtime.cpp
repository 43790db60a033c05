// Runs CUDA kernels on the host, block after block, and watches what they do.
//
// Each thread of a block is a fiber that runs until it waits at __syncthreads, or returns.  Blocks,
// and threads between two barriers, run in an order drawn from a seed.  Kernels are compiled with
// -fsanitize=thread and parts of -fsanitize=undefined, whose calls are answered here, so that every
// access to memory is seen: it must lie in an array that the kernel was given or in shared memory,
// and no two threads may touch the same bytes, one of them writing, without a barrier in between.
// The first thing that goes wrong ends the launch.

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <numeric>
#include <random>

struct Index { unsigned x, y, z; };
extern "C" Index threadIdx, blockIdx, blockDim, gridDim;
Index threadIdx, blockIdx, blockDim, gridDim;

namespace {

const int MOST_THREADS = 1024;
const size_t STACK = 1 << 17;
const size_t GUARD = 1 << 14;  // below each stack: an overflow ends the process, not another thread
const int READY = 0, DONE = -1, MANY = -1;

struct Fiber {
    jmp_buf place;
    bool alive;  // has a stack that waits for work, or is in the middle of it
    int line;    // of the barrier where it waits, or READY or DONE
};

// Who touched some bytes last, MANY for several threads, and in which phase: what lies between two
// barriers of a block.  Phases are counted on through all blocks and launches.
struct Mark { uint64_t phase; int64_t thread; };
struct Cell { Mark write, read; };

struct Range {
    uintptr_t begin, end;
    int grain;     // bytes for each cell
    int argument;  // its number, or -1: shared memory
    int constant;
    Cell* cells;  // or null: not watched for races
    uintptr_t touched[2][2];  // where reads begin and end, and writes
};

Fiber fibers[MOST_THREADS];
char* stacks;
jmp_buf scheduler;
void (*kernel)(void**);
void** values;
Range *ranges, *shared;  // shared memory is the last of the ranges
Range* last_range;  // that was found; null while no kernel runs
bool random_order;
int current, threads;
uint64_t phase, block_phase, launch_phase;  // now, and when the block and the launch began
bool failed;
char message[2048];
void* fault;  // the instruction

std::minstd_rand random_numbers;

void shuffle(int* order, int count) {
    std::iota(order, order + count, 0);
    if (random_order) std::shuffle(order, order + count, random_numbers);
}

Index index_of(unsigned number, Index size) {
    return {number % size.x, number / size.x % size.y, number / (size.x * size.y)};
}

// Notes what is wrong with a thread.
void report(int thread, void* instruction, const char* format, ...) {
    Index t = index_of(thread, blockDim), b = blockIdx;
    int length = snprintf(
        message, sizeof message, "thread (%u, %u, %u) of block (%u, %u, %u) ", t.x, t.y, t.z, b.x,
        b.y, b.z);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message + length, sizeof message - length, format, arguments);
    va_end(arguments);
    fault = instruction;
    failed = true;
}

// Notes what is wrong with the current thread, and ends the launch from inside it.
#define FAIL(...) (report(current, __VA_ARGS__), _longjmp(scheduler, 1))

void yield() {
    if (!_setjmp(fibers[current].place)) _longjmp(scheduler, 1);
}

void live() {
    for (;;) {
        kernel(values);
        fibers[current].line = DONE;
        yield();
    }
}

// Runs a thread until it waits.
void resume(int thread) {
    static ucontext_t start;
    Fiber& fiber = fibers[thread];
    current = thread;
    threadIdx = index_of(thread, blockDim);
    if (_setjmp(scheduler)) return;
    if (fiber.alive) _longjmp(fiber.place, 1);
    fiber.alive = true;
    getcontext(&start);
    start.uc_stack.ss_sp = stacks + thread * STACK + GUARD;
    start.uc_stack.ss_size = STACK - GUARD;
    start.uc_link = nullptr;
    makecontext(&start, live, 0);
    setcontext(&start);
}

void run_block() {
    static int order[MOST_THREADS];
    memset((void*)shared->begin, 0xff, shared->end - shared->begin);
    block_phase = ++phase;
    for (int t = 0; t < threads; ++t) fibers[t].line = READY;
    for (;; ++phase) {
        shuffle(order, threads);
        for (int i = 0; i < threads && !failed; ++i) resume(order[i]);
        for (int t = 0; t < threads && !failed; ++t) {
            int here = fibers[t].line, there = fibers[0].line;
            if (here == there) continue;
            if (here == DONE)
                report(t, nullptr, "has returned, but others wait at line %d: divergence", there);
            else
                report(t, nullptr, "waits at __syncthreads in line %d, but thread 0 %s %d: "
                       "divergence", here, there == DONE ? "has returned" : "in line", there);
        }
        if (failed || fibers[0].line == DONE) return;
        for (int t = 0; t < threads; ++t) fibers[t].line = READY;
    }
}

// Memory.

bool of_other_block(const Mark& mark) {
    return mark.phase >= launch_phase && mark.phase < block_phase;
}

// Tell whether nothing orders the current thread after what is marked.
bool races(const Mark& mark, bool is_shared) {
    return (!is_shared && of_other_block(mark)) || (mark.phase == phase && mark.thread != current);
}

const char* name(const Range& range) {
    static char text[32];
    snprintf(text, sizeof text, "argument %d", range.argument);
    return range.argument < 0 ? "shared memory" : text;
}

void touch(Range& range, uintptr_t address, size_t size, bool write, void* pc) {
    if (write && range.constant)
        FAIL(pc, "writes to %s, whose parameter is a pointer to const", name(range));
    uintptr_t* touched = range.touched[write];
    if (address < touched[0]) touched[0] = address;
    if (address + size > touched[1]) touched[1] = address + size;
    if (!range.cells) return;
    bool is_shared = range.argument < 0;
    size_t last = (address + size - 1 - range.begin) / range.grain;
    for (size_t i = (address - range.begin) / range.grain; i <= last; ++i) {
        Mark &written = range.cells[i].write, &read = range.cells[i].read;
        bool after_write = races(written, is_shared);
        if (after_write || (write && races(read, is_shared)))
            FAIL(pc, "races: it %s %s, element %zu, which another %s %s with no barrier in between",
                 write ? "writes" : "reads", name(range), i,
                 of_other_block(after_write ? written : read) ? "block" : "thread of the block",
                 after_write ? "wrote" : "read");
        if (write)
            written = {phase, current};
        else if (is_shared || !of_other_block(read))  // which any later write races with
            read = {phase, read.phase == phase && read.thread != current ? MANY : current};
    }
}

void access(void* pointer, size_t size, bool write, void* pc) {
    uintptr_t address = (uintptr_t)pointer;
    if (!last_range || address - (uintptr_t)stacks < MOST_THREADS * STACK) return;
    Range *range = last_range, *nearest = range, *end = shared + 1;
    auto holds = [&] { return address >= range->begin && address + size <= range->end; };
    auto beyond = [&](Range* r) {  // how far it is past the end, or before the beginning
        return (long long)(address - (address < r->begin ? r->begin : r->end - size));
    };
    if (!holds()) for (range = ranges; range < end && !holds(); ++range)
        if (llabs(beyond(range)) < llabs(beyond(nearest))) nearest = range;
    if (range < end) return touch(*(last_range = range), address, size, write, pc);
    Dl_info info;
    if (dladdr(pointer, &info)) return;  // constants of the module
    FAIL(pc, "%s out of bounds: %lld bytes %s %s", write ? "writes" : "reads",
         llabs(beyond(nearest)), beyond(nearest) > 0 ? "past the end of" : "before the start of",
         name(*nearest));
}

}  // namespace

extern "C" {

void cuda_host_syncthreads(int line) {
    fibers[current].line = line;
    yield();
}

// Functions that -fsanitize=thread calls.

#define HERE __builtin_return_address(0)
#define ACCESS(size) \
    void __tsan_read##size(void* p) { access(p, size, false, HERE); } \
    void __tsan_write##size(void* p) { access(p, size, true, HERE); } \
    void __tsan_unaligned_read##size(void* p) { access(p, size, false, HERE); } \
    void __tsan_unaligned_write##size(void* p) { access(p, size, true, HERE); }
ACCESS(1) ACCESS(2) ACCESS(4) ACCESS(8) ACCESS(16)
void __tsan_read_range(void* p, size_t n) { access(p, n, false, HERE); }
void __tsan_write_range(void* p, size_t n) { access(p, n, true, HERE); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

// Functions that -fsanitize=undefined calls: their data begin with a file's name and a line.

struct Source { const char* file; unsigned line; };
#define UNDEFINED(name, what) \
    void __ubsan_handle_##name(Source* source) { FAIL(nullptr, what " in line %u", source->line); }
UNDEFINED(out_of_bounds, "uses an index beyond the end of an array")
UNDEFINED(type_mismatch_v1, "uses an address that is not aligned for its type")
UNDEFINED(add_overflow, "overflows a signed integer")
UNDEFINED(sub_overflow, "overflows a signed integer")
UNDEFINED(mul_overflow, "overflows a signed integer")
UNDEFINED(negate_overflow, "overflows a signed integer")
UNDEFINED(divrem_overflow, "divides by zero")

// Runs a kernel.  Returns null, or the reason why it failed; `instruction` is then the offender's
// place in its module's file, or -1.
const char* cuda_host_launch(
    void (*given_kernel)(void**), void** given_values, const Index* grid, const Index* block,
    uint64_t seed, Range* given_ranges, int count, int64_t* instruction) {
    if (!stacks) {
        stacks = (char*)mmap(
            nullptr, MOST_THREADS * STACK, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stacks == MAP_FAILED) abort();
        for (int t = 0; t < MOST_THREADS; ++t) mprotect(stacks + t * STACK, GUARD, PROT_NONE);
    }
    kernel = given_kernel;
    values = given_values;
    ranges = last_range = given_ranges;
    shared = ranges + count - 1;
    gridDim = *grid;
    blockDim = *block;
    threads = blockDim.x * blockDim.y * blockDim.z;
    random_order = seed != 0;
    random_numbers.seed(seed);
    failed = false;
    launch_phase = ++phase;
    int blocks = gridDim.x * gridDim.y * gridDim.z;
    int* order = (int*)malloc(blocks * sizeof(int));
    shuffle(order, blocks);
    for (int i = 0; i < blocks && !failed; ++i) {
        blockIdx = index_of(order[i], gridDim);
        run_block();
    }
    free(order);
    last_range = nullptr;
    *instruction = -1;
    if (!failed) return nullptr;
    for (Fiber& fiber : fibers) fiber.alive = false;  // in the middle of a kernel that has ended
    Dl_info info;
    if (fault && dladdr(fault, &info)) *instruction = (char*)fault - 1 - (char*)info.dli_fbase;
    return message;
}

}
