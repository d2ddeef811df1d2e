#pragma once

// What a device's benchmark file needs: describe a row, make its data, compare its answer. An operation is bench/cuda/<op>.cpp,
// whose kernels are tests/cuda/operations/<op>.cu;
// rows are called cuda/<op>/<shape>/<dtype>. Times are medians of CUDA events over graph replays, so that a launch costs what it
// costs an engine that records its step.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <cuda_runtime.h>

#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

#include "../../tests/operations/operations.hpp"
#include "../harness.hpp"

namespace bench::device {

using ssmkit::index;

inline void must(cudaError_t status)
{
    if (status == cudaSuccess) return;
    std::fprintf(stderr, "%s\n", cudaGetErrorString(status));
    std::exit(1);
}

/// What an operation cannot avoid, as in bench::work, at the rates of the device: its floor is the largest of the three.
struct work {
    double bytes = 0;         ///< least traffic between memory and the chip, at the measured speed of a copy
    double exps = 0;          ///< on the special-function units: 16 a cycle and multiprocessor
    double fmas = 0;          ///< on the units of float: 128 a cycle and multiprocessor
    double tensor_flops = 0;  ///< additions and multiplications of matrix products that go to the tensor cores
    double tensor_rate = 990e12;  ///< of those, a second: bfloat16's on an H200 as its makers state it; 495e12 for tf32

    /// Seconds; `bound` names what binds.
    double floor_seconds(const char** bound = nullptr) const;
};

struct task {
    std::function<void(cudaStream_t)> run;
    work needs;
    std::string mismatch;     ///< why the answer is wrong; empty if it agrees with the CPU
    double peer_seconds = 0;  ///< the authors' own, from shared/gpu-baselines.md's second table (its first where it has none); 0: unknown
};

struct row {
    std::string op, shape, dtype;
    std::function<task()> prepare;

    std::string name() const { return "cuda/" + op + "/" + shape + "/" + dtype; }
};

inline std::vector<row>& rows()
{
    static std::vector<row> all;
    return all;
}

/// `const bench::device::registration here{[](std::vector<bench::device::row>& rows) { ... }};` at the end of a file.
struct registration {
    template <class F>
    explicit registration(F&& add_rows)
    {
        add_rows(rows());
    }
};

/// The authors' own time, as task::peer_seconds; 0: unknown.
struct peer_milliseconds {
    double f32 = 0, bf16 = 0;
};

/// Rows in f32 and bf16 of `make`, a lambda template: `[s]<class T>(double peer_ms) { return ssd_task<T>(s, peer_ms); }`.
template <class Make>
void add_rows(std::vector<row>& rows, const char* op, const std::string& shape, const peer_milliseconds& peer, const Make& make)
{
    rows.push_back({op, shape, "f32", [=] { return make.template operator()<float>(peer.f32); }});
    rows.push_back({op, shape, "bf16", [=] { return make.template operator()<ssmkit::bfloat16>(peer.bf16); }});
}

/// Runs the task once, and asks `mismatch` whether the answer agrees with the CPU's.
template <class Mismatch>
task checked(task t, Mismatch&& mismatch)
{
    t.run(nullptr);
    must(cudaDeviceSynchronize());
    t.mismatch = mismatch();
    return t;
}

/// Numbers of a fixed sequence between low and high; of float, bfloat16, float16, and std::complex<float> as pairs.
template <class T>
void fill(T* p, index n, float low, float high, unsigned seed);

/// Memory of the device.
template <class T>
class array {
public:
    /// Uniform in [low, high), the seed's own sequence.
    array(index n, float low, float high, unsigned seed) : array(n)
    {
        fill(data_, n, low, high, seed);
    }
    explicit array(index n) : size_(n) { must(cudaMalloc(reinterpret_cast<void**>(&data_), static_cast<std::size_t>(n) * sizeof(T))); }
    array(const array&) = delete;
    array& operator=(const array&) = delete;
    ~array() { cudaFree(data_); }

    T* data() const { return data_; }
    index size() const { return size_; }

    /// The first n elements (all of them), for the CPU.
    bench::array<T> host(index n = -1) const
    {
        bench::array<T> copy(static_cast<std::size_t>(n < 0 ? size_ : n));
        must(cudaMemcpy(copy.data(), data_, copy.size() * sizeof(T), cudaMemcpyDeviceToHost));
        return copy;
    }

private:
    T* data_ = nullptr;
    index size_ = 0;
};

/// A call of the operation that these arguments are of. The function returned keeps its workspace, and `data`, where the arguments
/// lie.
template <class Args>
std::function<void(cudaStream_t)> call(const Args& a, std::shared_ptr<const void> data = {})
{
    const ssmkit::testing::device_operation& op = ssmkit::testing::device_operations().at(typeid(Args));
    const auto workspace = std::make_shared<array<std::byte>>(static_cast<index>(op.workspace_size(&a)));
    return [&op, a, workspace, data](cudaStream_t stream) {
        op.run(&a, std::span(workspace->data(), static_cast<std::size_t>(workspace->size())), stream);
    };
}

/// Seconds of a call: the median over some `budget` seconds of replays of a graph of ten calls.
double median_seconds(const std::function<void(cudaStream_t)>& run, double budget = 0.15);

}  // namespace bench::device
