// Runs CUDA kernels on the host, block after block, and watches what they do.
//
// Each thread of a block is a fiber that runs until it waits: at __syncthreads, at a warp
// instruction, or for good.  Blocks, and threads between two waits, run in an order drawn from a
// seed.  Kernels are compiled with -fsanitize=thread and parts of -fsanitize=undefined, whose calls
// are answered here, so that every access to memory is seen: it must lie in an array that the
// kernel was given or in shared memory, and no two threads may touch the same bytes, one of them
// writing, without a barrier in between.  The first thing that goes wrong ends the launch.

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

namespace {

const int MOST_THREADS = 1024;
const size_t STACK = 1 << 17;
const size_t GUARD = 1 << 14;  // below each stack: an overflow ends the process, not another thread

struct Index { unsigned x, y, z; };

enum State { READY, BARRIER, MEETING, DONE };

struct Fiber {
    jmp_buf place;
    ucontext_t start;
    bool alive;       // has a stack that waits for work, or is in the middle of it
    State state;
    int line;         // where it waits
    unsigned mask;    // of the lanes that meet
    unsigned met;     // those that have met
    int memory;       // whether the meeting orders memory
    uint64_t in, out; // what is brought to a meeting, and was brought to the last one
    int vote;
    unsigned meetings;  // that ordered memory
};

// Who touched some bytes last, and when.  A block, warp or thread of MANY is more than one.
const int MANY = -2;
struct Mark {
    uint32_t launch;  // another launch's marks count for nothing
    int32_t block;
    int16_t warp, thread;
    uint16_t epoch;
    uint16_t meetings : 15, atomic : 1;
};
struct Cell { Mark write, read; };

struct Range {
    uintptr_t begin, end;
    int grain;  // bytes for each cell
    int argument;  // its number; 1000 more is what it holds addresses of; -1, -2: shared memory
    int constant;
    Cell* cells;
};

struct Launch {
    void (*kernel)(void**);
    void** values;
    Index grid, block;
    uint64_t seed;  // 0: in order
    char *shared_begin, *shared_end;
    size_t dynamic;
    Range* ranges;
    int count;
    int races;  // whether to look for them
};

Fiber fibers[MOST_THREADS];
char* stacks;
jmp_buf scheduler;
Launch* launch;
int current, threads, block_number;
uint32_t launches;
unsigned epoch;
bool fenced, failed;
char message[2048];
void* fault;  // the instruction
char* dynamic_shared;
size_t dynamic_room;
int barrier_votes;
Range shared[2];

uint64_t state;
uint64_t draw(uint64_t below) {  // splitmix64
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % below;
}

void shuffle(int* order, int count) {
    for (int i = 0; i < count; ++i) order[i] = i;
    if (launch->seed)
        for (int i = count - 1; i > 0; --i) {
            int j = (int)draw(i + 1), other = order[i];
            order[i] = order[j];
            order[j] = other;
        }
}

}  // namespace

extern "C" {
Index threadIdx, blockIdx, blockDim, gridDim;
}

namespace {

void where(int thread, char* text, size_t room) {
    unsigned x = blockDim.x, y = blockDim.y;
    snprintf(
        text, room, "thread (%u, %u, %u) of block (%u, %u, %u)", thread % x, thread / x % y,
        thread / (x * y), blockIdx.x, blockIdx.y, blockIdx.z);
}

void report(const char* format, ...) {
    if (failed) return;
    failed = true;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
}

// Ends the launch from inside a thread.
[[noreturn]] void stop() {
    fibers[current].alive = false;  // what is on its stack is given up
    _longjmp(scheduler, 1);
}

void fail_here(void* instruction, const char* format, ...) {
    if (failed) return;
    char place[128], text[1024];
    where(current, place, sizeof place);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fault = instruction;
    report("%s %s", place, text);
    stop();
}

void yield() {
    if (!_setjmp(fibers[current].place)) _longjmp(scheduler, 1);
}

void live() {
    for (;;) {
        launch->kernel(launch->values);
        fibers[current].state = DONE;
        yield();
    }
}

// Runs a thread until it waits.
void resume(int thread) {
    Fiber& fiber = fibers[thread];
    current = thread;
    unsigned x = blockDim.x, y = blockDim.y;
    threadIdx = {thread % x, thread / x % y, thread / (x * y)};
    if (_setjmp(scheduler)) return;
    if (fiber.alive) _longjmp(fiber.place, 1);
    fiber.alive = true;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = stacks + thread * STACK + GUARD;
    fiber.start.uc_stack.ss_size = STACK - GUARD;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, live, 0);
    setcontext(&fiber.start);
}

// Lets those lanes go on whose partners have all come; whether there were any.
bool release_meetings() {
    bool any = false;
    for (int first = 0; first < threads; first += 32) {
        int lanes = threads - first < 32 ? threads - first : 32;
        for (int lane = 0; lane < lanes; ++lane) {
            Fiber& leader = fibers[first + lane];
            if (leader.state != MEETING) continue;
            unsigned met = 0;
            bool complete = true;
            for (int other = 0; other < lanes && complete; ++other) {
                Fiber& fiber = fibers[first + other];
                if (!(leader.mask >> other & 1) || fiber.state == DONE) continue;
                complete = fiber.state == MEETING && fiber.mask == leader.mask
                    && fiber.line == leader.line;
                met |= 1u << other;
            }
            if (!complete) continue;
            any = true;
            for (int other = 0; other < lanes; ++other) {
                if (!(met >> other & 1)) continue;
                Fiber& fiber = fibers[first + other];
                fiber.out = fiber.in;
                fiber.met = met;
                fiber.meetings += fiber.memory;
                fiber.state = READY;
            }
        }
    }
    return any;
}

const char* at(const Fiber& fiber, char* text, size_t room) {
    if (fiber.state == DONE) snprintf(text, room, "has returned");
    else if (fiber.state == BARRIER)
        snprintf(text, room, "waits at __syncthreads in line %d", fiber.line);
    else
        snprintf(
            text, room, "waits in line %d for the lanes %#x of its warp", fiber.line, fiber.mask);
    return text;
}

// All alive threads must wait at one barrier.
bool release_barrier() {
    int first = -1, odd = -1;
    for (int t = 0; t < threads; ++t)
        if (fibers[t].state != DONE) { first = t; break; }
    if (first < 0) return false;
    for (int t = 0; t < threads && odd < 0; ++t)
        if (fibers[t].state != BARRIER || fibers[t].line != fibers[first].line) odd = t;
    if (odd < 0 && fibers[first].state == BARRIER) {
        barrier_votes = 0;
        for (int t = 0; t < threads; ++t) {
            barrier_votes += fibers[t].vote;
            fibers[t].state = READY;
        }
        ++epoch;
        return true;
    }
    if (odd < 0) odd = first == 0 ? threads - 1 : 0;
    char a[128], b[128], c[128], d[128];
    // Lead with a thread that waits.
    where(first, a, sizeof a);
    where(odd, b, sizeof b);
    fault = nullptr;
    report(
        "divergence: %s %s, but %s %s", a, at(fibers[first], c, sizeof c), b,
        at(fibers[odd], d, sizeof d));
    return false;
}

void run_block() {
    static int order[MOST_THREADS];
    memset(launch->shared_begin, 0xff, launch->shared_end - launch->shared_begin);
    memset(dynamic_shared, 0xff, dynamic_room);
    epoch = 0;
    for (int t = 0; t < threads; ++t) {
        fibers[t].state = READY;
        fibers[t].meetings = 0;
        fibers[t].vote = 0;
    }
    for (;;) {
        bool ran = false;
        shuffle(order, threads);
        for (int i = 0; i < threads; ++i) {
            if (fibers[order[i]].state != READY) continue;
            ran = true;
            resume(order[i]);
            if (failed) return;
        }
        if (release_meetings()) continue;
        if (!ran && !release_barrier()) return;
        if (failed) return;
    }
}

// Memory.

// Whether the current thread comes after what is marked.
bool ordered(const Mark& mark, const Mark& now, bool is_shared) {
    if (mark.launch != now.launch || (mark.atomic && now.atomic)) return true;
    if (mark.block != now.block) return fenced || is_shared;
    if (mark.epoch != now.epoch || mark.thread == now.thread) return true;
    return mark.warp == now.warp && mark.meetings != now.meetings;
}

void name(const Range& range, char* text, size_t room) {
    if (range.argument == -1) snprintf(text, room, "static shared memory");
    else if (range.argument == -2) snprintf(text, room, "dynamic shared memory");
    else if (range.argument >= 1000)
        snprintf(text, room, "what the addresses lead to in argument %d", range.argument - 1000);
    else snprintf(text, room, "argument %d", range.argument);
}

void touch(Range& range, uintptr_t address, size_t size, bool write, bool atomic, void* pc) {
    size_t first = (address - range.begin) / range.grain;
    size_t last = (address + size - 1 - range.begin) / range.grain;
    if (write && range.constant) {
        char what[64];
        name(range, what, sizeof what);
        fail_here(pc, "writes to %s, whose parameter is a pointer to const", what);
    }
    if (!launch->races || !range.cells) return;
    Mark now = {
        launches, block_number, (int16_t)(current / 32), (int16_t)current, (uint16_t)epoch,
        (uint16_t)(fibers[current].meetings & 0x7fff), atomic};
    bool is_shared = range.argument < 0;
    for (size_t i = first; i <= last; ++i) {
        Cell& cell = range.cells[i];
        const Mark* other = nullptr;
        if (!ordered(cell.write, now, is_shared)) other = &cell.write;
        else if (write && !ordered(cell.read, now, is_shared)) other = &cell.read;
        if (other) {
            char what[64], which[96], who[64];
            name(range, what, sizeof what);
            snprintf(which, sizeof which, is_shared ? "%s" : "%s, element %zu", what, i);
            if (other->block == MANY) snprintf(who, sizeof who, "several blocks");
            else if (other->block != block_number)
                snprintf(who, sizeof who, "block number %d", other->block);
            else if (other->thread == MANY) snprintf(who, sizeof who, "several threads");
            else snprintf(who, sizeof who, "thread number %d of the block", other->thread);
            fail_here(
                pc, "races: it %s %s, which %s %s with no barrier in between",
                write ? "writes" : "reads", which, who,
                other == &cell.write ? "wrote" : "read");
        }
        if (write) {
            cell.write = now;
            continue;
        }
        Mark merged = now, &read = cell.read;
        if (read.launch == now.launch && !read.atomic) {
            if (read.block != now.block) merged.block = is_shared ? now.block : MANY;
            else if (read.epoch == now.epoch) {
                if (read.thread != now.thread) merged.thread = MANY;
                if (read.warp != now.warp) merged.warp = MANY;
            }
        }
        read = merged;
    }
}

// Gives each range its cells, from memory that is kept from launch to launch.
void mark_ranges() {
    static Cell* cells;
    static size_t room;
    size_t needed = 0;
    for (int turn = 0; turn < 2; ++turn) {
        needed = 0;
        for (int i = 0; i < launch->count + 2; ++i) {
            Range& range = i < launch->count ? launch->ranges[i] : shared[i - launch->count];
            range.cells = cells + needed;
            needed += (range.end - range.begin + range.grain - 1) / range.grain;
        }
        if (needed <= room) break;
        free(cells);
        cells = (Cell*)calloc(needed, sizeof(Cell));
        room = cells ? needed : 0;
    }
    if (!launch->races || !cells)
        for (int i = 0; i < launch->count + 2; ++i)
            (i < launch->count ? launch->ranges[i] : shared[i - launch->count]).cells = nullptr;
    ++launches;
}

Range* last_range;

void access(uintptr_t address, size_t size, bool write, bool atomic, void* pc) {
    if (!launch || failed) return;
    if (address - (uintptr_t)stacks < MOST_THREADS * STACK) return;
    if (last_range && address >= last_range->begin && address + size <= last_range->end)
        return touch(*last_range, address, size, write, atomic, pc);
    for (int i = 0; i < launch->count + 2; ++i) {
        Range& range = i < launch->count ? launch->ranges[i] : shared[i - launch->count];
        if (address >= range.begin && address + size <= range.end) {
            last_range = &range;
            return touch(range, address, size, write, atomic, pc);
        }
    }
    Dl_info info;
    if (dladdr((void*)address, &info)) return;  // constants of the module
    // The nearest range, to say how far off it is.
    Range* nearest = nullptr;
    int64_t distance = 0;
    for (int i = 0; i < launch->count + 2; ++i) {
        Range& range = i < launch->count ? launch->ranges[i] : shared[i - launch->count];
        if (range.begin == range.end && i >= launch->count) continue;
        int64_t off = address >= range.begin ? (int64_t)(address + size - range.end)
                                             : (int64_t)(address - range.begin);
        if (!nearest || llabs(off) < llabs(distance)) {
            nearest = &range;
            distance = off;
        }
    }
    const char* verb = write ? "writes" : "reads";
    if (!nearest || llabs(distance) > (int64_t)1 << 32)
        fail_here(pc, "%s %zu bytes at %p, far from every array it was given", verb, size,
                  (void*)address);
    char what[64];
    name(*nearest, what, sizeof what);
    fail_here(
        pc, "%s out of bounds: %lld bytes %s %s", verb, (long long)llabs(distance),
        distance > 0 ? "past the end of" : "before the start of", what);
}

}  // namespace

extern "C" {

// What the device header calls.

void cuda_host_syncthreads(int line) {
    fibers[current].state = BARRIER;
    fibers[current].line = line;
    fibers[current].vote = 0;
    yield();
}

int cuda_host_syncthreads_count(int line, int predicate) {
    fibers[current].state = BARRIER;
    fibers[current].line = line;
    fibers[current].vote = predicate;
    yield();
    return barrier_votes;
}

unsigned cuda_host_meet(int line, unsigned mask, uint64_t value, int memory) {
    Fiber& fiber = fibers[current];
    if (!(mask >> current % 32 & 1))
        fail_here(nullptr, "in line %d names the lanes %#x, without itself", line, mask);
    fiber.state = MEETING;
    fiber.line = line;
    fiber.mask = mask;
    fiber.memory = memory;
    fiber.in = value;
    yield();
    return fibers[current].met;
}

uint64_t cuda_host_from_lane(int lane) {
    // What a lane that did not come would have brought is undefined: NaN, or -1.
    if (lane < 0 || lane > 31 || !(fibers[current].met >> lane & 1)) return ~(uint64_t)0;
    return fibers[current / 32 * 32 + lane].out;
}

int cuda_host_lane() { return current % 32; }

unsigned cuda_host_warp() {
    unsigned mask = 0;
    int first = current / 32 * 32;
    for (int lane = 0; lane < 32 && first + lane < threads; ++lane)
        if (fibers[first + lane].state != DONE) mask |= 1u << lane;
    return mask;
}

void cuda_host_fence() { fenced = true; }

void cuda_host_atomic(const void* address, size_t size) {
    access((uintptr_t)address, size, true, true, __builtin_return_address(0));
}

void* cuda_host_dynamic_shared() { return dynamic_shared; }

void cuda_host_trap(const char* what, int line) {
    fail_here(nullptr, "fails in line %d: %s", line, what);
}

// What -fsanitize=thread calls.

#define HERE __builtin_return_address(0)
#define ACCESS(size) \
    void __tsan_read##size(void* p) { access((uintptr_t)p, size, false, false, HERE); } \
    void __tsan_write##size(void* p) { access((uintptr_t)p, size, true, false, HERE); } \
    void __tsan_unaligned_read##size(void* p) { access((uintptr_t)p, size, false, false, HERE); } \
    void __tsan_unaligned_write##size(void* p) { access((uintptr_t)p, size, true, false, HERE); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void* p, size_t n) { access((uintptr_t)p, n, false, false, HERE); }
void __tsan_write_range(void* p, size_t n) { access((uintptr_t)p, n, true, false, HERE); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

// What -fsanitize=undefined calls: its data begin with a file's name, a line and a column.

struct Source { const char* file; unsigned line, column; };

void __ubsan_handle_out_of_bounds(Source* source, uintptr_t index) {
    fail_here(nullptr, "in line %u uses index %lld of an array that is shorter", source->line,
              (long long)(int32_t)index);
}

void __ubsan_handle_type_mismatch_v1(Source* source, uintptr_t address) {
    fail_here(nullptr, "in line %u uses address %p, which is not aligned for its type",
              source->line, (void*)address);
}

#define OVERFLOW(name) \
    void __ubsan_handle_##name##_overflow(Source* source) { \
        fail_here(nullptr, "overflows a signed integer, or divides by zero, in line %u", \
                  source->line); \
    }
OVERFLOW(add)
OVERFLOW(sub)
OVERFLOW(mul)
OVERFLOW(negate)
OVERFLOW(divrem)

// What Python calls.

// Runs a kernel.  Returns 0, or 1 with the reason in cuda_host_message; `instruction` is then the
// offender's place in its module's file, or -1.
int cuda_host_launch(Launch* given, int64_t* instruction) {
    if (!stacks) {
        stacks = (char*)mmap(
            nullptr, MOST_THREADS * STACK, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stacks == MAP_FAILED) {
            stacks = nullptr;
            snprintf(message, sizeof message, "there is no memory for the stacks of threads");
            return 1;
        }
        for (int t = 0; t < MOST_THREADS; ++t) mprotect(stacks + t * STACK, GUARD, PROT_NONE);
    }
    launch = given;
    gridDim = given->grid;
    blockDim = given->block;
    threads = given->block.x * given->block.y * given->block.z;
    state = given->seed;
    fenced = failed = false;
    fault = nullptr;
    last_range = nullptr;
    free(dynamic_shared);
    dynamic_room = given->dynamic + 64;
    dynamic_shared = (char*)aligned_alloc(64, (dynamic_room + 63) / 64 * 64);
    shared[0] = {(uintptr_t)given->shared_begin, (uintptr_t)given->shared_end, 4, -1, 0, nullptr};
    shared[1] = {(uintptr_t)dynamic_shared, (uintptr_t)dynamic_shared + given->dynamic, 4, -2, 0,
                 nullptr};
    mark_ranges();
    uint64_t blocks = (uint64_t)given->grid.x * given->grid.y * given->grid.z;
    int* order = (int*)malloc(blocks * sizeof(int));
    shuffle(order, (int)blocks);
    for (uint64_t i = 0; i < blocks && !failed; ++i) {
        unsigned n = block_number = order[i], x = gridDim.x, y = gridDim.y;
        blockIdx = {n % x, n / x % y, n / (x * y)};
        run_block();
    }
    if (failed)  // those that were in the middle of the kernel cannot go on
        for (int t = 0; t < MOST_THREADS; ++t) fibers[t].alive = false;
    free(order);
    launch = nullptr;
    *instruction = -1;
    Dl_info info;
    if (failed && fault && dladdr(fault, &info))
        *instruction = (char*)fault - 1 - (char*)info.dli_fbase;
    return failed;
}

const char* cuda_host_message() { return message; }

}
