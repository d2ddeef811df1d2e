// The selective scan on the device: medians of CUDA events beside the share of the special-function units' rate.
//
//     ssmkit_bench_cuda [shapes of bench/cuda/selective_scan.cu]

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <ssmkit/cuda/selective_scan.cuh>

namespace {

using ssmkit::view;

void must(cudaError_t status)
{
    if (status != cudaSuccess) {
        std::fprintf(stderr, "%s\n", cudaGetErrorString(status));
        std::exit(1);
    }
}

/// Numbers of a fixed sequence between low and high.
template <class T>
__global__ void fill(T* p, std::int64_t n, float low, float high, unsigned seed)
{
    for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < n; i += std::int64_t{gridDim.x} * blockDim.x) {
        unsigned x = static_cast<unsigned>(i) * 2654435761u + seed;
        x ^= x >> 16, x *= 0x7feb352du, x ^= x >> 15, x *= 0x846ca68bu, x ^= x >> 16;
        p[i] = ssmkit::cuda::detail::narrowed<T>(low + (high - low) * static_cast<float>(x) * 0x1p-32f);
    }
}

template <class T>
struct array {
    T* data = nullptr;
    explicit array(std::int64_t n, float low = 0, float high = 0, unsigned seed = 0)
    {
        must(cudaMalloc(reinterpret_cast<void**>(&data), static_cast<std::size_t>(n) * sizeof(T)));
        fill<<<1024, 256>>>(data, n, low, high, seed);
        must(cudaGetLastError());
    }
    array(const array&) = delete;
    ~array() { cudaFree(data); }
};

/// Milliseconds of a call: the median over repetitions of some `budget` milliseconds, launches recorded as a graph of ten.
template <class F>
double median_ms(F&& run, double budget = 150)
{
    cudaStream_t stream;
    must(cudaStreamCreate(&stream));
    run(stream);
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
    std::vector<float> times;
    for (double spent = -30; spent < budget;) {
        must(cudaEventRecord(begin, stream));
        must(cudaGraphLaunch(replay, stream));
        must(cudaEventRecord(end, stream));
        must(cudaEventSynchronize(end));
        float ms = 0;
        must(cudaEventElapsedTime(&ms, begin, end));
        spent += ms;
        if (spent > 0) times.push_back(ms / calls);
    }
    std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
    return times[times.size() / 2];
}

template <class T>
void row(std::int64_t batch, std::int64_t length, std::int64_t dim, std::int64_t state, bool z, const char* type, double peer)
{
    const std::int64_t tokens = batch * length * dim, maps = batch * length * state;
    array<T> u(tokens, -1, 1, 1), delta(tokens, -4, 0, 2), gate(tokens, -1, 1, 3), y(tokens), B(maps, -1, 1, 4), C(maps, -1, 1, 5);
    array<float> A(dim * state, -16, -1, 6), D(dim, -1, 1, 7), bias(dim, -1, 0, 8);
    const ssmkit::selective_scan_args<T> a{.u = {u.data, batch, length, dim},
                                           .delta = {delta.data, batch, length, dim},
                                           .A = {A.data, dim, state},
                                           .B = {B.data, batch, length, 1, state},
                                           .C = {C.data, batch, length, 1, state},
                                           .D = {D.data, dim},
                                           .z = z ? ssmkit::view<const T, 3>(gate.data, batch, length, dim) : ssmkit::view<const T, 3>(),
                                           .delta_bias = {bias.data, dim},
                                           .delta_softplus = true,
                                           .y = {y.data, batch, length, dim}};
#ifdef TUNE
    const auto go=[&]<class L>(L, const char* n){ const double ms = median_ms([&](cudaStream_t st) { ssmkit::cuda::detail::launch_selective_scan<L, false>(a, st); }, 40);
      std::printf("%dx%dx%d%s/%s %s: %.4f ms ratio %.3f\n",(int)batch,(int)length,(int)dim,z?"-z":"",type,n,ms,ms/peer);};
    using ssmkit::cuda::detail::scan_layout;
    go(scan_layout<128,8,2,32>{},"128,8,2,32");
    go(scan_layout<256,8,2,32>{},"256,8,2,32");
    go(scan_layout<128,4,4,32>{},"128,4,4,32");
    go(scan_layout<64,4,4,32>{},"64,4,4,32");
    go(scan_layout<128,16,1,32>{},"128,16,1,32");
    go(scan_layout<128,2,8,32>{},"128,2,8,32");
    go(scan_layout<64,2,8,16>{},"64,2,8,16");
    go(scan_layout<64,8,2,32>{},"64,8,2,32");
    return;
#endif
#ifndef TUNE
    const double ms = median_ms([&](cudaStream_t stream) { ssmkit::cuda::selective_scan(a, stream); });
    cudaDeviceProp device;
    must(cudaGetDeviceProperties(&device, 0));
    int clock = 0;
    must(cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, 0));
    // An exp a state and token, two of softplus' and two of silu's: 16 a cycle and multiprocessor.
    const double exps = static_cast<double>(tokens) * (static_cast<double>(state) + 2 + (z ? 2 : 0));
    const double floor = exps / (16.0 * device.multiProcessorCount * clock * 1e3) * 1e3;
    std::printf("selective_scan/cuda/%dx%dx%dx%d%s/%s: %.4f ms, peer %.4f, ratio %.3f, limit_fraction %.3f\n", static_cast<int>(batch),
                static_cast<int>(length), static_cast<int>(dim), static_cast<int>(state), z ? "-z" : "", type, ms, peer, ms / peer,
                floor / ms);
#endif
}

}  // namespace

int main()
{
    struct shape {
        std::int64_t batch, length, dim;
        double peer[4];  // float with z and without, bfloat16 with z and without: shared/gpu-baselines.md
    };
    for (const shape& s : {shape{1, 2048, 1536, {0.1283, 0.1210, 0.0689, 0.0634}}, {8, 2048, 1536, {0.8776, 0.8344, 0.4478, 0.4191}},
                           {8, 2048, 5120, {2.8579, 2.7262, 1.4466, 1.3569}}, {1, 16384, 5120, {3.1923, 3.0196, 1.8583, 1.7579}},
                           {1, 131072, 1536, {7.6400, 7.2892, 4.4033, 4.1805}}, {64, 512, 1536, {1.7652, 1.6723, 0.7939, 0.7522}}}) {
        for (const bool z : {true, false}) row<float>(s.batch, s.length, s.dim, 16, z, "f32", s.peer[z ? 0 : 1]);
        for (const bool z : {true, false}) row<ssmkit::bfloat16>(s.batch, s.length, s.dim, 16, z, "bf16", s.peer[z ? 2 : 3]);
    }
}
