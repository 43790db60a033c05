// Denormal numbers as zeros.
//
// Adam's moments of weights without a gradient decay into denormals, each of which costs a hundred
// cycles on x86.  While kernels run, results that small become zero and such operands count as zero.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace layerkit {

#if defined(__x86_64__) || defined(_M_X64)

inline std::uint64_t floating_state() { return _mm_getcsr(); }
inline void set_floating_state(std::uint64_t state) { _mm_setcsr(static_cast<unsigned>(state)); }
constexpr std::uint64_t flush_bits = 0x8040;  // flush to zero, and denormals are zero

#elif defined(__aarch64__)

inline std::uint64_t floating_state()
{
    std::uint64_t state;
    asm volatile("mrs %0, fpcr" : "=r"(state));
    return state;
}
inline void set_floating_state(std::uint64_t state) { asm volatile("msr fpcr, %0" ::"r"(state)); }
constexpr std::uint64_t flush_bits = 1 << 24;

#else

inline std::uint64_t floating_state() { return 0; }
inline void set_floating_state(std::uint64_t) {}
constexpr std::uint64_t flush_bits = 0;

#endif

// For the rest of the thread's life.
inline void flush_denormals() { set_floating_state(floating_state() | flush_bits); }

// For as long as it lives; then the thread's state is as before.
class Flushed {
public:
    Flushed() : before_(floating_state()) { set_floating_state(before_ | flush_bits); }
    ~Flushed() { set_floating_state(before_); }
    Flushed(const Flushed&) = delete;
    Flushed& operator=(const Flushed&) = delete;

private:
    std::uint64_t before_;
};

}  // namespace layerkit
