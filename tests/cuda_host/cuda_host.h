// CUDA's device language for a host compiler: what a kernel may name, in plain C++.
//
// A kernel's source is compiled behind this header, with every access to memory instrumented
// (-fsanitize=thread, whose calls runtime.cpp answers), and runs on fibers: see runtime.cpp.
// As under NVRTC there is no standard library.
#pragma once
#pragma GCC system_header  // the strictness that sources are read with is not for this file

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define CUDA_HOST_EXACT __attribute__((no_sanitize("thread"), noinline, unused))

// Qualifiers.

#define __global__ __attribute__((noinline))
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __managed__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
// One block runs at a time, so a block's shared memory can be static; the section is poisoned
// before each block.
#define __shared__ static __attribute__((section("cuda_shared"), used))

// Vectors.

#define CUDA_HOST_VECTORS(T, name, align2, align4) \
    struct name##1 { T x; }; \
    struct __align__(align2) name##2 { T x, y; }; \
    struct name##3 { T x, y, z; }; \
    struct __align__(align4) name##4 { T x, y, z, w; }; \
    inline name##1 make_##name##1(T x) { return {x}; } \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; } \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

CUDA_HOST_VECTORS(signed char, char, 2, 4)
CUDA_HOST_VECTORS(unsigned char, uchar, 2, 4)
CUDA_HOST_VECTORS(short, short, 4, 8)
CUDA_HOST_VECTORS(unsigned short, ushort, 4, 8)
CUDA_HOST_VECTORS(int, int, 8, 16)
CUDA_HOST_VECTORS(unsigned int, uint, 8, 16)
CUDA_HOST_VECTORS(long long, longlong, 16, 16)
CUDA_HOST_VECTORS(unsigned long long, ulonglong, 16, 16)
CUDA_HOST_VECTORS(float, float, 8, 16)
CUDA_HOST_VECTORS(double, double, 16, 16)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
    operator uint3() const { return {x, y, z}; }
};

// The runtime.

extern "C" {
// Constant as far as one thread can see: the runtime sets them when it switches to it.
extern const uint3 threadIdx, blockIdx;
extern const dim3 blockDim, gridDim;

void cuda_host_syncthreads(int line);
int cuda_host_syncthreads_count(int line, int predicate);
unsigned cuda_host_meet(int line, unsigned mask, uint64_t value, int memory);
uint64_t cuda_host_from_lane(int lane);  // what that lane brought to the last meeting
int cuda_host_lane();
unsigned cuda_host_warp();  // mask of the lanes that have not returned
void cuda_host_fence();
void cuda_host_atomic(const void* address, size_t size);
void* cuda_host_dynamic_shared();
void cuda_host_trap(const char* what, int line);
}

const int warpSize = 32;

#define __syncthreads() cuda_host_syncthreads(__LINE__)
#define __syncthreads_count(p) cuda_host_syncthreads_count(__LINE__, (p) != 0)
#define __syncthreads_or(p) (cuda_host_syncthreads_count(__LINE__, (p) != 0) > 0)
#define __syncthreads_and(p) (cuda_host_syncthreads_count(__LINE__, (p) == 0) == 0)
#define __threadfence() cuda_host_fence()
#define __threadfence_block() cuda_host_fence()
#define __threadfence_system() cuda_host_fence()
#define __trap() cuda_host_trap("__trap()", __LINE__)
#define __nanosleep(n) ((void)(n))
#undef assert
#define assert(condition) ((condition) ? (void)0 : cuda_host_trap("assert", __LINE__))

// Warps.

template <class T> CUDA_HOST_EXACT T cuda_host_shuffle(
    int line, unsigned mask, T value, int source, int own_if_outside) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    cuda_host_meet(line, mask, bits, 0);
    if (own_if_outside) return value;
    bits = cuda_host_from_lane(source);
    memcpy(&value, &bits, sizeof(T));
    return value;
}

template <class T> CUDA_HOST_EXACT T cuda_host_shfl(
    int line, unsigned mask, T value, int source, int width = 32) {
    int lane = cuda_host_lane(), first = lane / width * width;
    return cuda_host_shuffle(line, mask, value, first + (source & (width - 1)), 0);
}

template <class T> CUDA_HOST_EXACT T cuda_host_shfl_up(
    int line, unsigned mask, T value, unsigned delta, int width = 32) {
    int lane = cuda_host_lane(), first = lane / width * width, source = lane - (int)delta;
    return cuda_host_shuffle(line, mask, value, source, source < first);
}

template <class T> CUDA_HOST_EXACT T cuda_host_shfl_down(
    int line, unsigned mask, T value, unsigned delta, int width = 32) {
    int lane = cuda_host_lane(), first = lane / width * width, source = lane + (int)delta;
    return cuda_host_shuffle(line, mask, value, source, source >= first + width);
}

template <class T> CUDA_HOST_EXACT T cuda_host_shfl_xor(
    int line, unsigned mask, T value, int bits, int width = 32) {
    int lane = cuda_host_lane(), first = lane / width * width, source = lane ^ bits;
    return cuda_host_shuffle(line, mask, value, source, source >= first + width);
}

CUDA_HOST_EXACT inline unsigned cuda_host_ballot(int line, unsigned mask, int predicate) {
    unsigned met = cuda_host_meet(line, mask, predicate != 0, 0), result = 0;
    for (int lane = 0; lane < 32; ++lane)
        if (met >> lane & 1 && cuda_host_from_lane(lane)) result |= 1u << lane;
    return result;
}

CUDA_HOST_EXACT inline int cuda_host_all(int line, unsigned mask, int predicate) {
    return cuda_host_ballot(line, mask, !predicate) == 0;
}

template <class T, class F> CUDA_HOST_EXACT T cuda_host_reduce(
    int line, unsigned mask, T value, F combine) {
    unsigned met = cuda_host_meet(line, mask, (uint64_t)value, 0);
    bool first = true;
    T total = value;
    for (int lane = 0; lane < 32; ++lane)
        if (met >> lane & 1) {
            T other = (T)cuda_host_from_lane(lane);
            total = first ? other : combine(total, other);
            first = false;
        }
    return total;
}

inline void cuda_host_syncwarp(int line, unsigned mask = 0xffffffffu) {
    cuda_host_meet(line, mask, 0, 1);
}

#define __shfl_sync(...) cuda_host_shfl(__LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) cuda_host_shfl_up(__LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) cuda_host_shfl_down(__LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) cuda_host_shfl_xor(__LINE__, __VA_ARGS__)
#define __ballot_sync(mask, p) cuda_host_ballot(__LINE__, mask, (p) != 0)
#define __any_sync(mask, p) (cuda_host_ballot(__LINE__, mask, (p) != 0) != 0)
#define __all_sync(mask, p) cuda_host_all(__LINE__, mask, (p) != 0)
#define __reduce_add_sync(mask, v) \
    cuda_host_reduce(__LINE__, mask, v, [](auto a, auto b) { return a + b; })
#define __reduce_max_sync(mask, v) \
    cuda_host_reduce(__LINE__, mask, v, [](auto a, auto b) { return a > b ? a : b; })
#define __reduce_min_sync(mask, v) \
    cuda_host_reduce(__LINE__, mask, v, [](auto a, auto b) { return a < b ? a : b; })
#define __syncwarp(...) cuda_host_syncwarp(__LINE__ __VA_OPT__(,) __VA_ARGS__)
#define __activemask() cuda_host_warp()

// Atomics: threads switch only where they wait, so plain code is atomic.

#define CUDA_HOST_ATOMIC(T, name, expression) \
    CUDA_HOST_EXACT inline T name(T* address, T value) { \
        cuda_host_atomic(address, sizeof(T)); \
        T old = *address; \
        *address = (T)(expression); \
        return old; \
    }
#define CUDA_HOST_INTEGER_ATOMICS(T) \
    CUDA_HOST_ATOMIC(T, atomicAdd, old + value) \
    CUDA_HOST_ATOMIC(T, atomicExch, value) \
    CUDA_HOST_ATOMIC(T, atomicMin, old < value ? old : value) \
    CUDA_HOST_ATOMIC(T, atomicMax, old > value ? old : value) \
    CUDA_HOST_ATOMIC(T, atomicAnd, old & value) \
    CUDA_HOST_ATOMIC(T, atomicOr, old | value) \
    CUDA_HOST_ATOMIC(T, atomicXor, old ^ value) \
    CUDA_HOST_EXACT inline T atomicCAS(T* address, T compare, T value) { \
        cuda_host_atomic(address, sizeof(T)); \
        T old = *address; \
        if (old == compare) *address = value; \
        return old; \
    }

CUDA_HOST_INTEGER_ATOMICS(int)
CUDA_HOST_INTEGER_ATOMICS(unsigned)
CUDA_HOST_INTEGER_ATOMICS(unsigned long long)
CUDA_HOST_ATOMIC(float, atomicAdd, old + value)
CUDA_HOST_ATOMIC(double, atomicAdd, old + value)
CUDA_HOST_ATOMIC(float, atomicExch, value)
CUDA_HOST_ATOMIC(int, atomicSub, old - value)
CUDA_HOST_ATOMIC(unsigned, atomicSub, old - value)
CUDA_HOST_ATOMIC(unsigned, atomicInc, old >= value ? 0 : old + 1)
CUDA_HOST_ATOMIC(unsigned, atomicDec, old == 0 || old > value ? value : old - 1)

// Loads and stores with hints.

template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldcg(const T* p) { return *p; }
template <class T> inline T __ldca(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T> inline T __ldlu(const T* p) { return *p; }
template <class T> inline void __stwb(T* p, T v) { *p = v; }
template <class T> inline void __stcg(T* p, T v) { *p = v; }
template <class T> inline void __stcs(T* p, T v) { *p = v; }
template <class T> inline void __stwt(T* p, T v) { *p = v; }

// Bits.

template <class To, class From> inline To cuda_host_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    __builtin_memcpy(&to, &from, sizeof(To));
    return to;
}

inline int __float_as_int(float x) { return cuda_host_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return cuda_host_bits<unsigned>(x); }
inline float __int_as_float(int x) { return cuda_host_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return cuda_host_bits<float>(x); }
inline long long __double_as_longlong(double x) { return cuda_host_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return cuda_host_bits<double>(x); }
inline double __hiloint2double(int high, int low) {
    return cuda_host_bits<double>((uint64_t)(unsigned)high << 32 | (unsigned)low);
}
inline int __double2hiint(double x) { return (int)(cuda_host_bits<uint64_t>(x) >> 32); }
inline int __double2loint(double x) { return (int)cuda_host_bits<uint64_t>(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (uint64_t)a * b >> 32; }
inline int __mulhi(int a, int b) { return (int64_t)a * b >> 32; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline int __mul24(int a, int b) { return (a << 8 >> 8) * (b << 8 >> 8); }
inline unsigned __umul24(unsigned a, unsigned b) { return (a & 0xffffff) * (b & 0xffffff); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; ++i) y |= (x >> i & 1) << (31 - i);
    return y;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return (((uint64_t)high << 32 | low) << (shift & 31)) >> 32;
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return ((uint64_t)high << 32 | low) >> (shift & 31);
}

// Conversions and arithmetic of a stated rounding, which is the host's: to the nearest.

inline float __double2float_rn(double x) { return (float)x; }
inline float __int2float_rn(int x) { return (float)x; }
inline float __uint2float_rn(unsigned x) { return (float)x; }
inline double __int2double_rn(int x) { return x; }
inline double __uint2double_rn(unsigned x) { return x; }
inline float __ull2float_rn(unsigned long long x) { return (float)x; }
inline double __ull2double_rn(unsigned long long x) { return (double)x; }
inline int __float2int_rn(float x) { return (int)rintf(x); }
inline int __float2int_rz(float x) { return (int)x; }
inline int __float2int_rd(float x) { return (int)floorf(x); }
inline int __float2int_ru(float x) { return (int)ceilf(x); }
inline unsigned __float2uint_rn(float x) { return (unsigned)rintf(x); }
inline unsigned __float2uint_rz(float x) { return (unsigned)x; }
inline int __double2int_rn(double x) { return (int)rint(x); }
inline int __double2int_rz(double x) { return (int)x; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __frcp_rn(float a) { return 1 / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __frsqrt_rn(float a) { return 1 / sqrtf(a); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __drcp_rn(double a) { return 1 / a; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

// Mathematics.  The C library has the functions of double and float; CUDA's own follow.

#undef isnan
#undef isinf
#undef isfinite
#undef signbit
inline bool isnan(float x) { return __builtin_isnan(x); }
inline bool isnan(double x) { return __builtin_isnan(x); }
inline bool isinf(float x) { return __builtin_isinf(x); }
inline bool isinf(double x) { return __builtin_isinf(x); }
inline bool isfinite(float x) { return __builtin_isfinite(x); }
inline bool isfinite(double x) { return __builtin_isfinite(x); }
inline bool signbit(float x) { return __builtin_signbit(x); }
inline bool signbit(double x) { return __builtin_signbit(x); }

#define CUDA_HOST_FLOAT(name) inline float name(float x) { return name##f(x); }
CUDA_HOST_FLOAT(acos) CUDA_HOST_FLOAT(acosh) CUDA_HOST_FLOAT(asin) CUDA_HOST_FLOAT(asinh)
CUDA_HOST_FLOAT(atan) CUDA_HOST_FLOAT(atanh) CUDA_HOST_FLOAT(cbrt) CUDA_HOST_FLOAT(ceil)
CUDA_HOST_FLOAT(cos) CUDA_HOST_FLOAT(cosh) CUDA_HOST_FLOAT(erf) CUDA_HOST_FLOAT(erfc)
CUDA_HOST_FLOAT(exp) CUDA_HOST_FLOAT(exp2) CUDA_HOST_FLOAT(expm1) CUDA_HOST_FLOAT(fabs)
CUDA_HOST_FLOAT(floor) CUDA_HOST_FLOAT(lgamma) CUDA_HOST_FLOAT(log) CUDA_HOST_FLOAT(log10)
CUDA_HOST_FLOAT(log1p) CUDA_HOST_FLOAT(log2) CUDA_HOST_FLOAT(rint) CUDA_HOST_FLOAT(round)
CUDA_HOST_FLOAT(sin) CUDA_HOST_FLOAT(sinh) CUDA_HOST_FLOAT(sqrt) CUDA_HOST_FLOAT(tan)
CUDA_HOST_FLOAT(tanh) CUDA_HOST_FLOAT(tgamma) CUDA_HOST_FLOAT(trunc)
#undef CUDA_HOST_FLOAT
#define CUDA_HOST_FLOAT(name) inline float name(float x, float y) { return name##f(x, y); }
CUDA_HOST_FLOAT(atan2) CUDA_HOST_FLOAT(copysign) CUDA_HOST_FLOAT(fdim) CUDA_HOST_FLOAT(fmax)
CUDA_HOST_FLOAT(fmin) CUDA_HOST_FLOAT(fmod) CUDA_HOST_FLOAT(hypot) CUDA_HOST_FLOAT(pow)
CUDA_HOST_FLOAT(remainder)
#undef CUDA_HOST_FLOAT
inline float fma(float a, float b, float c) { return fmaf(a, b, c); }
inline float abs(float x) { return fabsf(x); }
inline double abs(double x) { return fabs(x); }
inline int abs(int x) { return x < 0 ? -x : x; }
inline long abs(long x) { return x < 0 ? -x : x; }
inline long long abs(long long x) { return x < 0 ? -x : x; }
inline float modf(float x, float* whole) { return modff(x, whole); }
inline void sincos(float x, float* s, float* c) { *s = sinf(x); *c = cosf(x); }

#define CUDA_HOST_EXTREMES(T) \
    inline T max(T a, T b) { return a > b ? a : b; } \
    inline T min(T a, T b) { return a < b ? a : b; }
CUDA_HOST_EXTREMES(int)
CUDA_HOST_EXTREMES(unsigned)
CUDA_HOST_EXTREMES(long)
CUDA_HOST_EXTREMES(unsigned long)
CUDA_HOST_EXTREMES(long long)
CUDA_HOST_EXTREMES(unsigned long long)
#undef CUDA_HOST_EXTREMES
inline unsigned max(int a, unsigned b) { return max((unsigned)a, b); }
inline unsigned max(unsigned a, int b) { return max(a, (unsigned)b); }
inline unsigned min(int a, unsigned b) { return min((unsigned)a, b); }
inline unsigned min(unsigned a, int b) { return min(a, (unsigned)b); }
inline float max(float a, float b) { return fmaxf(a, b); }  // a NaN loses
inline float min(float a, float b) { return fminf(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(float a, double b) { return fmax((double)a, b); }
inline double max(double a, float b) { return fmax(a, (double)b); }
inline double min(float a, double b) { return fmin((double)a, b); }
inline double min(double a, float b) { return fmin(a, (double)b); }

inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }
inline float rcbrtf(float x) { return 1 / cbrtf(x); }
inline double sinpi(double x) { return sin(M_PI * fmod(x, 2)); }
inline double cospi(double x) { return cos(M_PI * fmod(x, 2)); }
inline float sinpif(float x) { return (float)sinpi((double)x); }
inline float cospif(float x) { return (float)cospi((double)x); }
inline void sincospi(double x, double* s, double* c) { *s = sinpi(x); *c = cospi(x); }
inline void sincospif(float x, float* s, float* c) { *s = sinpif(x); *c = cospif(x); }
inline double normcdf(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }
inline float normcdff(float x) { return (float)normcdf((double)x); }
inline float fdividef(float a, float b) { return a / b; }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }

inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return powf(10, x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline void __sincosf(float x, float* s, float* c) { *s = sinf(x); *c = cosf(x); }
inline float __fdividef(float a, float b) { return a / b; }

// Launching: a kernel's parameters, and a call with pointers to their values.

struct cuda_host_parameter {
    int size;      // bytes of the parameter
    int element;   // bytes of what a pointer points to, or 0
    char kind;     // 'i', 'u', 'f', 'b', 'V' (a struct): of the value, or of what is pointed to
    char constant; // whether a pointer is to const
};

template <class T> struct cuda_host_kind { static const char value = 'V'; };
#define CUDA_HOST_KIND(T, letter) \
    template <> struct cuda_host_kind<T> { static const char value = letter; };
CUDA_HOST_KIND(bool, 'b')
CUDA_HOST_KIND(char, 'i') CUDA_HOST_KIND(signed char, 'i') CUDA_HOST_KIND(unsigned char, 'u')
CUDA_HOST_KIND(short, 'i') CUDA_HOST_KIND(unsigned short, 'u')
CUDA_HOST_KIND(int, 'i') CUDA_HOST_KIND(unsigned, 'u')
CUDA_HOST_KIND(long, 'i') CUDA_HOST_KIND(unsigned long, 'u')
CUDA_HOST_KIND(long long, 'i') CUDA_HOST_KIND(unsigned long long, 'u')
CUDA_HOST_KIND(float, 'f') CUDA_HOST_KIND(double, 'f')
template <class T> struct cuda_host_kind<const T> : cuda_host_kind<T> {};
// Vectors count as what they are made of.
#define CUDA_HOST_VECTOR_KIND(name, letter) \
    CUDA_HOST_KIND(name##2, letter) CUDA_HOST_KIND(name##4, letter)
CUDA_HOST_VECTOR_KIND(int, 'I') CUDA_HOST_VECTOR_KIND(uint, 'U') CUDA_HOST_VECTOR_KIND(uchar, 'U')
CUDA_HOST_VECTOR_KIND(float, 'F') CUDA_HOST_VECTOR_KIND(double, 'F')

template <class T> struct cuda_host_describe {
    static const cuda_host_parameter value() {
        return {(int)sizeof(T), 0, cuda_host_kind<T>::value, 0};
    }
};
template <class T> struct cuda_host_describe<T*> {
    static const cuda_host_parameter value() {
        return {(int)sizeof(T*), (int)sizeof(T), cuda_host_kind<T>::value, 0};
    }
};
template <class T> struct cuda_host_describe<const T*> {
    static const cuda_host_parameter value() {
        return {(int)sizeof(T*), (int)sizeof(T), cuda_host_kind<T>::value, 1};
    }
};
template <> struct cuda_host_describe<void*> {
    static const cuda_host_parameter value() { return {(int)sizeof(void*), 1, 'v', 0}; }
};
template <> struct cuda_host_describe<const void*> {
    static const cuda_host_parameter value() { return {(int)sizeof(void*), 1, 'v', 1}; }
};

template <int... I> struct cuda_host_indices {};
template <int N, int... I> struct cuda_host_count : cuda_host_count<N - 1, N - 1, I...> {};
template <int... I> struct cuda_host_count<0, I...> { typedef cuda_host_indices<I...> type; };

template <class T> struct cuda_host_plain { typedef T type; };
template <class T> struct cuda_host_plain<const T> { typedef T type; };

template <class... P, int... I> CUDA_HOST_EXACT void cuda_host_call(
    void (*kernel)(P...), void** values, cuda_host_indices<I...>) {
    kernel(*(typename cuda_host_plain<P>::type*)values[I]...);
}
template <class... P> CUDA_HOST_EXACT void cuda_host_call(void (*kernel)(P...), void** values) {
    cuda_host_call(kernel, values, typename cuda_host_count<(int)sizeof...(P)>::type());
}
template <class... P> int cuda_host_describe_all(
    void (*)(P...), cuda_host_parameter* out, int room) {
    cuda_host_parameter all[] = {cuda_host_describe<P>::value()..., {}};
    for (int i = 0; i < (int)sizeof...(P) && i < room; ++i) out[i] = all[i];
    return (int)sizeof...(P);
}

// `number` and what it stands for, in a kernel's place in the module.
#define CUDA_HOST_KERNEL(number, ...) \
    extern "C" void cuda_host_run_##number(void** values) { cuda_host_call(__VA_ARGS__, values); } \
    extern "C" int cuda_host_parameters_##number(cuda_host_parameter* out, int room) { \
        return cuda_host_describe_all(__VA_ARGS__, out, room); \
    }

// The section of static shared memory, if the module has any.
extern "C" __attribute__((weak)) char __start_cuda_shared[], __stop_cuda_shared[];
extern "C" __attribute__((visibility("default"), used)) inline void cuda_host_shared(
    char** begin, char** end) {
    *begin = __start_cuda_shared;
    *end = __stop_cuda_shared;
}

// NVRTC has none of these.  A source may define them for itself.
#undef INFINITY
#undef NAN
#undef HUGE_VAL
#undef M_PI
#undef M_E
#undef M_SQRT2
#undef M_SQRT1_2
#undef M_LN2
#define std no_standard_library_under_nvrtc
#define int8_t int8_t_of_the_source
#define int16_t int16_t_of_the_source
#define int32_t int32_t_of_the_source
#define int64_t int64_t_of_the_source
#define uint8_t uint8_t_of_the_source
#define uint16_t uint16_t_of_the_source
#define uint32_t uint32_t_of_the_source
#define uint64_t uint64_t_of_the_source
#define intptr_t intptr_t_of_the_source
#define uintptr_t uintptr_t_of_the_source
