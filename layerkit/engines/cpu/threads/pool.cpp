#include "pool.h"

#include <pthread.h>

#include <new>
#include <system_error>
#include <thread>
#include <utility>

#include "flush.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace layerkit {

namespace {

constexpr int spins = 1000;    // turns of a waiting loop before others may have the core
constexpr int patience = 5000;  // turns of an idle helper, about a millisecond

// One turn of a waiting loop.  At first it spins, as work comes, or ends, within microseconds; later
// it lets others run, who may be those waited for.
void wait(int turn)
{
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
    if (turn > spins) std::this_thread::yield();
}

}  // namespace

Pool& pool()
{
    // Never destroyed: helpers may still look at it while the process ends.
    static Pool* const only = [] {
        Pool* made = new Pool;
        pthread_atfork(nullptr, nullptr, [] { pool().restart(); });
        return made;
    }();
    return *only;
}

void Pool::resize(int threads)
{
    try {
        for (; started_ < threads; ++started_) std::thread([this] { help(); }).detach();
    } catch (const std::system_error&) {
        threads = started_;
    }
    threads_ = threads;
}

void Pool::restart()
{
    int threads = threads_;
    new (this) Pool;  // whatever state the parent's threads left behind
    resize(threads);
}

// Claims one piece of the present job and runs it; false where none is left.  The ticket counts down
// in its low half; the job's number is in the high one, so that a thread that comes late cannot
// claim a piece of a later job by mistake.
bool Pool::take()
{
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    for (;;) {
        std::uint32_t left = static_cast<std::uint32_t>(ticket);
        if (left == 0) return false;
        if (ticket_.compare_exchange_weak(
                ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
            Piece piece = piece_.load(std::memory_order_relaxed);
            try {
                piece(arguments_.load(std::memory_order_relaxed), left - 1);
            } catch (...) {
                std::lock_guard<std::mutex> lock(mutex_);
                failure_ = std::current_exception();
            }
            done_.fetch_add(1, std::memory_order_acq_rel);
            return true;
        }
    }
}

void Pool::run(i64 count, Piece piece, void* arguments)
{
    if (count <= 0) return;
    bool free = false;
    if (threads_ == 1 || !busy_.compare_exchange_strong(free, true, std::memory_order_acquire)) {
        for (i64 i = 0; i < count; ++i) piece(arguments, i);  // or another thread is in a kernel
        return;
    }
    piece_.store(piece, std::memory_order_relaxed);
    arguments_.store(arguments, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    std::uint64_t job = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    ticket_.store(job << 32 | static_cast<std::uint64_t>(count), std::memory_order_seq_cst);
    wake();
    while (take()) {
    }
    for (int turn = 0; done_.load(std::memory_order_acquire) < count; ++turn) wait(turn);
    std::exception_ptr failure = std::exchange(failure_, nullptr);
    busy_.store(false, std::memory_order_release);
    if (failure) std::rethrow_exception(failure);
}

void Pool::wake()
{
    if (!sleeping_.load(std::memory_order_seq_cst)) return;
    {
        std::lock_guard<std::mutex> lock(mutex_);
        sleeping_.store(false, std::memory_order_relaxed);
        ++awakenings_;
    }
    condition_.notify_all();
}

void Pool::help()
{
    flush_denormals();
    for (;;) {
        for (int idle = 0; idle < patience;) {
            if (take()) {
                idle = 0;
            } else {
                wait(idle);
                // While a kernel runs the next job may be near.
                if (idle <= spins || !busy_.load(std::memory_order_relaxed)) ++idle;
            }
        }
        std::unique_lock<std::mutex> lock(mutex_);
        sleeping_.store(true, std::memory_order_seq_cst);
        // A job handed out just before `sleeping_` was set has woken nobody.
        if (static_cast<std::uint32_t>(ticket_.load(std::memory_order_seq_cst)) != 0) continue;
        std::uint64_t before = awakenings_;
        condition_.wait(lock, [&] { return awakenings_ != before; });
    }
}

}  // namespace layerkit
