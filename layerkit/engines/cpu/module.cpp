// The extension module: which kernels this processor can run, under names that Python calls.

#include <pybind11/pybind11.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "threads/flush.h"
#include "kernels/kernels.h"
#include "threads/pool.h"

namespace py = pybind11;
using layerkit::Array;

namespace {

// Calls of kernels, with their arguments, that are made again without Python in between.
struct Program {
    struct Call {
        int label;
        std::function<void()> make;
    };
    std::vector<Call> calls;
    std::vector<py::object> arrays;  // which the calls read and write
    int label = 0;                   // of the calls that are recorded next
    int at = 0;                      // of the call that is being made, or has failed
};

// Where this thread's calls of kernels are noted while they are made.
thread_local Program* recorded = nullptr;

// Runs without Python's lock.  Taking it back ends the thread where the interpreter is being closed,
// by an exception of its own kind, which pybind11's gil_scoped_release would turn into an abort.
struct WithoutLock {
    PyThreadState* state = PyEval_SaveThread();
    ~WithoutLock() noexcept(false) { PyEval_RestoreThread(state); }
};

void run(Program& program)
{
    WithoutLock free;
    layerkit::Flushed flushed;
    for (const Program::Call& call : program.calls) {
        program.at = call.label;
        call.make();
    }
}

}  // namespace

namespace pybind11::detail {

// Any object with memory of its own, such as a NumPy array; the caller keeps it alive, or else the
// program that the call becomes part of.
template <> struct type_caster<Array> {
    PYBIND11_TYPE_CASTER(Array, const_name("array"));

    bool load(handle source, bool)
    {
        Py_buffer view;
        if (PyObject_GetBuffer(source.ptr(), &view, PyBUF_STRIDES | PyBUF_FORMAT) != 0) {
            PyErr_Clear();
            return false;
        }
        bool fits = view.ndim <= Array::most && view.format;
        if (fits) {
            const char code = view.format[view.format[0] == '=' || view.format[0] == '@' ? 1 : 0];
            value.data = static_cast<char*>(view.buf);
            value.axes = view.ndim;
            value.itemsize = static_cast<int>(view.itemsize);
            value.kind = code == 'f' || code == 'd' ? 'f'
                : code == '?'                       ? 'b'
                : code == 'B' || code == 'H' || code == 'I' || code == 'L' || code == 'Q' ? 'u'
                                                                                          : 'i';
            for (int axis = 0; axis < view.ndim; ++axis) {
                value.shape[axis] = view.shape[axis];
                value.stride[axis] = view.strides[axis];
            }
        }
        PyBuffer_Release(&view);
        if (fits && recorded) recorded->arrays.push_back(reinterpret_borrow<object>(source));
        return fits;
    }
};

}  // namespace pybind11::detail

namespace {

const layerkit::Kernels& best()
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return layerkit::avx512_kernels;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
        && __builtin_cpu_supports("bmi2"))
        return layerkit::avx2_kernels;
#endif
    return layerkit::baseline_kernels;
}

const layerkit::Kernels* chosen = &best();

// Calls a kernel of the chosen table with denormals flushed to zero.
template <class... Arguments> auto kernel(void (*layerkit::Kernels::*member)(Arguments...))
{
    return [member](Arguments... arguments) {
        layerkit::Flushed flushed;
        (chosen->*member)(arguments...);
        if (recorded)
            recorded->calls.push_back(
                {recorded->label, [=] { (chosen->*member)(arguments...); }});
    };
}

// Two pieces of work that wait for each other, for half a minute at most; whether both were run at
// once, which takes a second thread.
bool meet()
{
    std::atomic<int> begun{0}, met{0};
    layerkit::parallel(2, [&](layerkit::i64) {
        ++begun;
        auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(30);
        while (begun < 2 && std::chrono::steady_clock::now() < patience) std::this_thread::yield();
        if (begun == 2) ++met;
    });
    return met == 2;
}

// Adds 1 to every number, each in a piece of work of its own.
void count(Array numbers)
{
    auto* data = layerkit::elements<std::int64_t>(numbers);
    layerkit::parallel(numbers.size(), [&](layerkit::i64 i) { ++data[i]; });
}

}  // namespace

PYBIND11_MODULE(_cpu, m)
{
    using layerkit::Kernels;
    m.doc() = "Kernels for CPUs; see layerkit/engines/cpu.";
    py::register_exception<layerkit::Mismatch>(
        m, "MismatchError", py::module_::import("layerkit.blob").attr("ReboundError"));
    m.def("set_threads", [](int threads) { layerkit::pool().resize(threads); });
    m.def("threads", [] { return layerkit::pool().threads(); });
    m.def("name", [] { return chosen->name; });
    m.def("activations", [] { return chosen->activations; });
    m.def("choose", [](const std::string& name) {
        for (const Kernels* table : {
                 &layerkit::baseline_kernels,
#if defined(__x86_64__)
                 &layerkit::avx2_kernels, &layerkit::avx512_kernels,
#endif
             })
            if (name == table->name && table->vector_bytes <= best().vector_bytes) {
                chosen = table;
                return true;
            }
        return false;
    });
    m.def("flush", [] {
        std::uint64_t before = layerkit::floating_state();
        layerkit::flush_denormals();
        return before;
    });
    m.def("restore", layerkit::set_floating_state);
    py::class_<Program>(m, "Program", "Calls of kernels that are made again without Python.")
        .def(py::init<>())
        .def("run", run)
        .def_readwrite("label", &Program::label, "Number that the calls recorded next are given.")
        .def_readonly("at", &Program::at, "Label of the call that is being made, or has failed.")
        .def("__len__", [](const Program& program) { return program.calls.size(); });
    m.def("record", [](Program* program) { recorded = program; }, py::arg().none(true));
    m.def("meet", meet);
    m.def("count", count);
    m.def("products", kernel(&Kernels::products));
    m.def("copy", kernel(&Kernels::copy));
    m.def("magnitude", kernel(&Kernels::magnitude));
    m.def("gradient_bound", kernel(&Kernels::gradient_bound));
    m.def("fill", kernel(&Kernels::fill));
    m.def("add_number", kernel(&Kernels::add_number));
    m.def("add", kernel(&Kernels::add));
    m.def("multiply_elements", kernel(&Kernels::multiply_elements));
    m.def("mean", kernel(&Kernels::mean));
    m.def("copy_rows", kernel(&Kernels::copy_rows));
    m.def("multiply", kernel(&Kernels::multiply));
    m.def("exponential", kernel(&Kernels::exponential));
    m.def("logarithm", kernel(&Kernels::logarithm));
    m.def("activate", kernel(&Kernels::activate));
    m.def("differentiate", kernel(&Kernels::differentiate));
    m.def("update", kernel(&Kernels::update));
    m.def("approach", kernel(&Kernels::approach));
    m.def("constrain", kernel(&Kernels::constrain));
    m.def("dense_forward", kernel(&Kernels::dense_forward));
    m.def("dense_backward", kernel(&Kernels::dense_backward));
    m.def("gaussian", kernel(&Kernels::gaussian));
    m.def("student", kernel(&Kernels::student));
    m.def("divergence", kernel(&Kernels::divergence));
    m.def("divergence_backward", kernel(&Kernels::divergence_backward));
    m.def("reparameterize", kernel(&Kernels::reparameterize));
    m.def("reparameterize_backward", kernel(&Kernels::reparameterize_backward));
    m.def("normalize", kernel(&Kernels::normalize));
    m.def("normalize_backward", kernel(&Kernels::normalize_backward));
    m.def("windowed_forward", kernel(&Kernels::windowed_forward));
    m.def("windowed_backward", kernel(&Kernels::windowed_backward));
    m.def("pool_windows", kernel(&Kernels::pool_windows));
    m.def("unpool_windows", kernel(&Kernels::unpool_windows));
    m.def("measure_poses", kernel(&Kernels::measure_poses));
    m.def("resample", kernel(&Kernels::resample));
    m.def("resample_backward", kernel(&Kernels::resample_backward));
    m.def("gather", kernel(&Kernels::gather));
}
