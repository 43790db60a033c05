// CUDA's device language for g++: what a kernel may name, in plain C++.
//
// A source is compiled behind this header with every access to memory instrumented
// (-fsanitize=thread, whose calls runtime.cpp answers).  As under NVRTC there is no standard library:
// mathematics comes from functions that are built into the compiler.

#define __global__ __attribute__((noinline))
#define __device__
#define __host__
#define __forceinline__ inline
// One block runs at a time, so its shared memory can be static; the section is poisoned before each.
#define __shared__ static __attribute__((section("cuda_shared"), used))
#define __syncthreads() cuda_host_syncthreads(__LINE__)

typedef __SIZE_TYPE__ size_t;
struct uint3 { unsigned x, y, z; };
extern "C" {
// Constant as far as one thread can see: the runtime sets them when it switches to it.
extern const uint3 threadIdx, blockIdx, blockDim, gridDim;
void cuda_host_syncthreads(int line);
}

// Mathematics: of float by either name, of double, and of nothing else.

#define CUDA_HOST_ONE(name) \
    inline float name##f(float x) { return __builtin_##name##f(x); } \
    inline float name(float x) { return __builtin_##name##f(x); } \
    inline double name(double x) { return __builtin_##name(x); }
#define CUDA_HOST_TWO(name) \
    inline float name##f(float x, float y) { return __builtin_##name##f(x, y); } \
    inline float name(float x, float y) { return __builtin_##name##f(x, y); } \
    inline double name(double x, double y) { return __builtin_##name(x, y); }
#define CUDA_HOST_TEST(name) \
    inline bool name(float x) { return __builtin_##name(x); } \
    inline bool name(double x) { return __builtin_##name(x); }

CUDA_HOST_ONE(acos) CUDA_HOST_ONE(asin) CUDA_HOST_ONE(asinh) CUDA_HOST_ONE(atan) CUDA_HOST_ONE(cbrt)
CUDA_HOST_ONE(ceil) CUDA_HOST_ONE(cos) CUDA_HOST_ONE(cosh) CUDA_HOST_ONE(erf) CUDA_HOST_ONE(erfc)
CUDA_HOST_ONE(exp) CUDA_HOST_ONE(exp2) CUDA_HOST_ONE(expm1) CUDA_HOST_ONE(fabs) CUDA_HOST_ONE(floor)
CUDA_HOST_ONE(lgamma) CUDA_HOST_ONE(log) CUDA_HOST_ONE(log1p) CUDA_HOST_ONE(log2) CUDA_HOST_ONE(rint)
CUDA_HOST_ONE(round) CUDA_HOST_ONE(sin) CUDA_HOST_ONE(sinh) CUDA_HOST_ONE(sqrt) CUDA_HOST_ONE(tan)
CUDA_HOST_ONE(tanh) CUDA_HOST_ONE(trunc) CUDA_HOST_TWO(atan2) CUDA_HOST_TWO(copysign)
CUDA_HOST_TWO(fmax) CUDA_HOST_TWO(fmin) CUDA_HOST_TWO(fmod) CUDA_HOST_TWO(hypot) CUDA_HOST_TWO(pow)
CUDA_HOST_TEST(isfinite) CUDA_HOST_TEST(isinf) CUDA_HOST_TEST(isnan)

// Launching: a kernel's parameters, and a call with pointers to their values.

struct cuda_host_parameter {
    char kind, constant;  // 'i', 'u', 'f', 'b' or 'V' of the value or what is pointed to; to const?
    short element, size;  // bytes of what is pointed to, or 0, and of the parameter
};

template <class T, bool = __is_class(T)> constexpr char cuda_host_kind =
    T(0.5) != T(0) ? (T(2) == T(1) ? 'b' : 'f') : T(-1) < T(0) ? 'i' : 'u';
template <class T> constexpr char cuda_host_kind<T, true> = 'V';
template <class T> struct cuda_host_describe {
    static constexpr cuda_host_parameter value = {cuda_host_kind<T>, 0, 0, sizeof(T)};
};
template <class T> struct cuda_host_describe<T*> {
    static constexpr cuda_host_parameter value = {cuda_host_kind<T>, 0, sizeof(T), sizeof(T*)};
};
template <class T> struct cuda_host_describe<const T*> {
    static constexpr cuda_host_parameter value = {cuda_host_kind<T>, 1, sizeof(T), sizeof(T*)};
};
template <class... P> int cuda_host_list(void (*)(P...), cuda_host_parameter* out) {
    ((*out++ = cuda_host_describe<P>::value), ...);
    return sizeof...(P);
}

template <int...> struct cuda_host_numbers {};
template <class... P, int... I> __attribute__((no_sanitize("thread"))) void cuda_host_call(
    void (*kernel)(P...), void** values, cuda_host_numbers<I...>) {
    kernel(*(P*)values[I]...);
}
template <class... P> void cuda_host_call(void (*kernel)(P...), void** values) {
    cuda_host_call(kernel, values, cuda_host_numbers<__integer_pack(sizeof...(P))...>());
}
#define CUDA_HOST_KERNEL(name) \
    extern "C" void cuda_host_run_##name(void** values) { cuda_host_call(name, values); } \
    extern "C" int cuda_host_list_##name(cuda_host_parameter* out) { \
        return cuda_host_list(name, out); \
    }

// The section of shared memory, if the module has any.
extern "C" __attribute__((weak)) char __start_cuda_shared[], __stop_cuda_shared[];
extern "C" __attribute__((used)) inline void cuda_host_shared(char** begin, char** end) {
    *begin = __start_cuda_shared;
    *end = __stop_cuda_shared;
}
