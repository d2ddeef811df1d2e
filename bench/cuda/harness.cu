#include "harness.hpp"

#include <algorithm>
#include <complex>

#include <benchmark/benchmark.h>

#include <ssmkit/cuda/device.cuh>

namespace bench::device {
namespace {

template <class T>
__global__ void fill_kernel(T* p, index n, float low, float high, unsigned seed)
{
    for (index i = blockIdx.x * index{blockDim.x} + threadIdx.x; i < n; i += index{gridDim.x} * blockDim.x) {
        unsigned x = static_cast<unsigned>(i) * 2654435761u + seed * 0x9e3779b9u;
        x ^= x >> 16, x *= 0x7feb352du, x ^= x >> 15, x *= 0x846ca68bu, x ^= x >> 16;
        p[i] = ssmkit::cuda::detail::narrowed<T>(low + (high - low) * static_cast<float>(x) * 0x1p-32f);
    }
}

/// A block copies `each` times its threads' 16 bytes, all of them under way at once.
constexpr int copy_each = 4, copy_threads = 512;
__global__ void __launch_bounds__(copy_threads) copy_kernel(const float4* __restrict__ from, float4* __restrict__ to)
{
    const index first = blockIdx.x * index{copy_each * copy_threads} + threadIdx.x;
    float4 x[copy_each];
#pragma unroll
    for (int k = 0; k < copy_each; ++k) x[k] = from[first + k * copy_threads];
#pragma unroll
    for (int k = 0; k < copy_each; ++k) to[first + k * copy_threads] = x[k];
}

/// Bytes that a copy within the device's memory moves a second, read and written. The runtime's own copies, in a graph, reach two
/// thirds of it.
double copy_bandwidth()
{
    static const double measured = [] {
        constexpr index bytes = index{1} << 32, blocks = bytes / (16 * copy_each * copy_threads);
        const array<float> from(bytes / 4, 0, 1, 1), to(bytes / 4);
        return 2.0 * bytes / median_seconds([&](cudaStream_t stream) {
                   copy_kernel<<<static_cast<unsigned>(blocks), copy_threads, 0, stream>>>(
                       reinterpret_cast<const float4*>(from.data()), reinterpret_cast<float4*>(to.data()));
               });
    }();
    return measured;
}

/// Cycles a second of all multiprocessors together, at the device's highest clock.
double multiprocessor_cycles()
{
    int count = 0, kilohertz = 0;
    must(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0));
    must(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, 0));
    return 1e3 * count * kilohertz;
}

void run_row(benchmark::State& state, const row& r)
{
    const task what = r.prepare();
    if (!what.mismatch.empty()) return state.SkipWithError(what.mismatch.c_str());
    const double time = median_seconds(what.run);
    for (auto _ : state) state.SetIterationTime(time);
    const char* bound = "";
    const double floor = what.needs.floor_seconds(&bound);
    state.SetLabel(bound);
    state.counters["floor_us"] = 1e6 * floor;
    state.counters["limit_fraction"] = floor / time;
    state.counters["bytes_per_second"] = what.needs.bytes / time;
    if (what.peer_seconds > 0) state.counters["of_peer"] = time / what.peer_seconds;
}

}  // namespace

template <class T>
void fill(T* p, index n, float low, float high, unsigned seed)
{
    if constexpr (ssmkit::detail::is_complex<T>) {
        fill(reinterpret_cast<float*>(p), 2 * n, low, high, seed);
    } else {
        fill_kernel<<<1024, 256>>>(p, n, low, high, seed);
        must(cudaGetLastError());
    }
}
template void fill(float*, index, float, float, unsigned);
template void fill(ssmkit::bfloat16*, index, float, float, unsigned);
template void fill(ssmkit::float16*, index, float, float, unsigned);
template void fill(std::complex<float>*, index, float, float, unsigned);

double work::floor_seconds(const char** bound) const
{
    struct limit {
        double seconds;
        const char* name;
    };
    const limit all[] = {{bytes / copy_bandwidth(), "bytes"},
                         {exps / (16 * multiprocessor_cycles()), "exps"},
                         {fmas / (128 * multiprocessor_cycles()), "fmas"},
                         {tensor_flops / tensor_rate, "tensor cores"}};
    const limit& most = *std::max_element(std::begin(all), std::end(all), [](auto& a, auto& b) { return a.seconds < b.seconds; });
    if (bound) *bound = most.name;
    return most.seconds;
}

double median_seconds(const std::function<void(cudaStream_t)>& run, double budget)
{
    cudaStream_t stream;
    must(cudaStreamCreate(&stream));
    run(stream);
    must(cudaStreamSynchronize(stream));
    cudaGraph_t graph;
    cudaGraphExec_t replay;
    must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    constexpr int calls = 10;
    for (int i = 0; i < calls; ++i) run(stream);
    must(cudaStreamEndCapture(stream, &graph));
    must(cudaGraphInstantiate(&replay, graph, 0));
    cudaEvent_t begin, end;
    must(cudaEventCreate(&begin));
    must(cudaEventCreate(&end));
    std::vector<double> times;
    for (double spent = -0.2 * budget; spent < budget || times.empty();) {
        must(cudaEventRecord(begin, stream));
        must(cudaGraphLaunch(replay, stream));
        must(cudaEventRecord(end, stream));
        must(cudaEventSynchronize(end));
        float ms = 0;
        must(cudaEventElapsedTime(&ms, begin, end));
        spent += 1e-3 * ms;
        if (spent > 0) times.push_back(1e-3 * ms / calls);
    }
    must(cudaEventDestroy(begin));
    must(cudaEventDestroy(end));
    must(cudaGraphExecDestroy(replay));
    must(cudaGraphDestroy(graph));
    must(cudaStreamDestroy(stream));
    return median(times);
}

void register_rows()
{
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return;
    std::stable_sort(rows().begin(), rows().end(), [](const row& a, const row& b) { return a.op < b.op; });
    for (const row& r : rows()) {
        benchmark::RegisterBenchmark(r.name().c_str(), [&r](benchmark::State& state) { run_row(state, r); })
            ->Unit(benchmark::kMicrosecond)
            ->UseManualTime()
            ->Iterations(1);
    }
}

}  // namespace bench::device
