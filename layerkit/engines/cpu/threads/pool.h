// The threads that share the work of a kernel.
//
// Kernels are short (a training step at batch 1 has twenty of them in less than a millisecond), so
// handing out work must cost less than a microsecond, and must not stall when another program takes
// a core away.  The calling thread takes pieces like any other, so it waits only for pieces that a
// helper has begun.  A helper without work spins for about a millisecond, then sleeps.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <type_traits>
#include <vector>

#include "../vectors/array.h"

namespace layerkit {

class Pool {
public:
    using Piece = void (*)(void* arguments, i64 index);

    // Sets how many threads share the work, the calling one included; starts those that are missing.
    // Where the system gives no more, those that there are share it.
    void resize(int threads);

    // piece(arguments, i) for every i < count.  Which thread runs which is left to chance.  If one
    // throws (memory has run out), the last such exception is thrown when all are over.
    void run(i64 count, Piece piece, void* arguments);

    int threads() const { return threads_; }

    // In the child of a fork, which inherits no thread.
    void restart();

private:
    bool take();
    void help();
    void wake();

    // A cache line of its own for each word that threads fight over.
    alignas(128) std::atomic<std::uint64_t> ticket_{0};  // number of the job, pieces left
    alignas(128) std::atomic<i64> done_{0};
    alignas(128) std::atomic<bool> busy_{false};
    alignas(128) std::atomic<Piece> piece_{nullptr};
    std::atomic<void*> arguments_{nullptr};
    alignas(128) std::atomic<bool> sleeping_{false};
    std::uint64_t awakenings_ = 0;
    std::exception_ptr failure_;  // of a piece of the present job
    std::mutex mutex_;
    std::condition_variable condition_;
    int threads_ = 1, started_ = 1;
};

Pool& pool();

// function(i) for every i < count, shared among the threads of the pool.
template <class Function> void parallel(i64 count, Function&& function)
{
    if (count == 1) {
        function(i64(0));
        return;
    }
    pool().run(
        count, [](void* f, i64 i) { (*static_cast<std::remove_reference_t<Function>*>(f))(i); },
        &function);
}

// Room for `size` elements that a thread keeps from call to call, one for each Tag.
template <class Tag, class T> T* work_space(i64 size)
{
    static thread_local std::vector<T> kept;
    if (i64(kept.size()) < size) kept.resize(size);
    return kept.data();
}

}  // namespace layerkit
