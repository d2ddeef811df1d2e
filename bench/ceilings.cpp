#include "ceilings.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <type_traits>
#include <unistd.h>

#include <benchmark/benchmark.h>
#include <ssmkit/detail/math.hpp>
#include <ssmkit/detail/simd.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using arch = xsimd::default_arch;
using ssmkit::index;
using ssmkit::detail::lanes;
template <class T>
using vec = ssmkit::detail::vec<T, arch>;

// ---- Arithmetic -----------------------------------------------------------------------------------------------------

/// Twelve independent chains: latency 4 to 5 on up to two units, in the 16 registers of AVX2.
constexpr int chains = 12;

template <class T>
[[gnu::noinline]] void multiply_add(index rounds)
{
    vec<T> sum[chains];
    for (int i = 0; i < chains; ++i) sum[i] = vec<T>(T(i));
    T factor = T(0.5), term = T(0.25);
    benchmark::DoNotOptimize(factor);
    benchmark::DoNotOptimize(term);
    const vec<T> f(factor), t(term);
    for (index r = 0; r < rounds; ++r) {
        for (int i = 0; i < chains; ++i) sum[i] = xsimd::fma(sum[i], f, t);
    }
    for (int i = 1; i < chains; ++i) sum[0] += sum[i];
    T total = ssmkit::detail::sum(sum[0]);
    benchmark::DoNotOptimize(total);
}

/// exp2 from one array into another, both in L1, four registers at a time so that the loop itself costs nothing.
/// Arguments straight from memory or, if so asked, by way of an addition: Zen 4's vreduceps with a memory operand waits
/// for the value that its destination had before (26 cycles instead of 5.5), elsewhere the addition may cost a slot.
template <class T, bool Computed>
[[gnu::noinline]] void exponential(const T* from, T* to, index n, index rounds)
{
    constexpr index step = lanes<T, arch>;
    T zero = T(0);
    benchmark::DoNotOptimize(zero);
    const vec<T> offset(zero);
    for (index r = 0; r < rounds; ++r) {
        for (index i = 0; i < n; i += 4 * step) {
            for (index k = 0; k < 4; ++k) {
                vec<T> x = vec<T>::load_aligned(from + i + k * step);
                if constexpr (Computed) x += offset;
                ssmkit::detail::fast_exp2(x).store_aligned(to + i + k * step);
            }
        }
        benchmark::ClobberMemory();
    }
}

// ---- Memory: `n` is a multiple of 8 registers -----------------------------------------------------------------------

constexpr index unroll = 8;

[[gnu::noinline]] void read(const float* from, index n)
{
    constexpr index step = lanes<float, arch>;
    vec<float> sum[unroll];
    for (index k = 0; k < unroll; ++k) sum[k] = vec<float>(0.0f);
    for (index i = 0; i < n; i += unroll * step) {
        for (index k = 0; k < unroll; ++k) sum[k] += vec<float>::load_aligned(from + i + k * step);
    }
    for (index k = 1; k < unroll; ++k) sum[0] += sum[k];
    float total = ssmkit::detail::sum(sum[0]);
    benchmark::DoNotOptimize(total);
}

[[gnu::noinline]] void copy(const float* from, float* to, index n)
{
    constexpr index step = lanes<float, arch>;
    for (index i = 0; i < n; i += unroll * step) {
        for (index k = 0; k < unroll; ++k)
            vec<float>::load_aligned(from + i + k * step).store_aligned(to + i + k * step);
    }
    benchmark::ClobberMemory();
}

/// Around the caches, where the compiler can say so; elsewhere an ordinary copy.
[[gnu::noinline]] void copy_streaming(const float* from, float* to, index n)
{
#if defined(__SSE2__)
    for (index i = 0; i < n; i += 16) {
        for (index k = 0; k < 16; k += 4) _mm_stream_ps(to + i + k, _mm_load_ps(from + i + k));
    }
    _mm_sfence();
#else
    copy(from, to, n);
#endif
    benchmark::ClobberMemory();
}

[[gnu::noinline]] void update(float* data, index n)
{
    constexpr index step = lanes<float, arch>;
    const vec<float> one(1.0f);
    for (index i = 0; i < n; i += unroll * step) {
        for (index k = 0; k < unroll; ++k) {
            (vec<float>::load_aligned(data + i + k * step) + one).store_aligned(data + i + k * step);
        }
    }
    benchmark::ClobberMemory();
}

// ---- Probes: one measurement each ----------------------------------------------------------------------------------

struct probe {
    std::string name;
    const char* counter;
    double amount;                                   // elements or bytes that one call handles, all threads together
    std::function<std::function<void()>()> prepare;  // allocates what it needs and returns the call
};

double cache_size(int level_name, double otherwise)
{
    const long bytes = sysconf(level_name);
    return bytes > 0 ? static_cast<double>(bytes) : otherwise;
}

/// L1, L2, L3, DRAM. Where the system does not tell, sizes that most processors have.
const std::array<double, 4>& capacities()
{
    static const std::array<double, 4> sizes = {cache_size(_SC_LEVEL1_DCACHE_SIZE, 32e3),
                                                cache_size(_SC_LEVEL2_CACHE_SIZE, 512e3),
                                                cache_size(_SC_LEVEL3_CACHE_SIZE, 8e6), 1e15};
    return sizes;
}

/// Calls f(thread) on each of the first `threads` cores.
template <class F>
void on_each_core(std::size_t threads, F&& f)
{
    if (threads == 1) {
        f(std::size_t{0});
    } else {
        pool(threads)(threads, f);
    }
}

template <class T>
std::string named(const char* unit)
{
    return std::string(unit) + (std::is_same_v<T, double> ? "_f64" : "");
}

template <class T>
probe fma_probe(std::size_t threads)
{
    constexpr index rounds = 200'000;
    return {named<T>("fma"), "elements_per_second",
            static_cast<double>(threads) * static_cast<double>(rounds * chains * lanes<T, arch>),
            [threads] { return [threads] { on_each_core(threads, [](std::size_t) { multiply_add<T>(rounds); }); }; }};
}

template <class T, bool Computed>
probe exp_probe(std::size_t threads)
{
    constexpr index rounds = 2000, n = 4096 / static_cast<index>(sizeof(T));
    return {named<T>("exp"), "elements_per_second", static_cast<double>(threads) * static_cast<double>(rounds * n),
            [threads] {
                // Results half a page beyond the arguments: a load that shares the low 12 bits of its address with an
                // earlier store may have to wait for it.
                const auto memory = std::make_shared<array<T>>(fill<T>(threads * 3 * n, -20.0, 0.0, 1));
                return [=] {
                    on_each_core(threads, [&](std::size_t core) {
                        T* const from = memory->data() + core * 3 * n;
                        exponential<T, Computed>(from, from + n + n / 2, n, rounds);
                    });
                };
            }};
}

enum class copy_with { ordinary, memcpy, streaming };

/// What the memory probes work on, kept: getting fresh pages from the system takes far longer than measuring.
float* probe_memory(std::size_t n)
{
    static array<float> memory;
    if (memory.size() < n) memory = array<float>(n);
    return memory.data();
}

/// Memory traffic over `bytes` of each core; a copy goes from one half of them to the other.
probe memory_probe(const std::string& name, traffic kind, copy_with way, double bytes, std::size_t threads)
{
    constexpr index granule = unroll * lanes<float, arch> * 2;
    const index n = std::max<index>(static_cast<index>(bytes / sizeof(float)) / granule, 1) * granule;
    const index passes =
        std::max<index>((index{16} << 20) / static_cast<index>(sizeof(float)) / n, 1);  // 16 MB or more a call
    const double counted = static_cast<double>(n * passes) * sizeof(float) * (kind == traffic::update ? 2 : 1);
    return {name, "bytes_per_second", static_cast<double>(threads) * counted, [=] {
                float* const memory = probe_memory(threads * static_cast<std::size_t>(n));
                return [=] {
                    on_each_core(threads, [&](std::size_t core) {
                        float* const p = memory + core * static_cast<std::size_t>(n);
                        float* const half = p + n / 2;
                        for (index pass = 0; pass < passes; ++pass) {
                            if (kind == traffic::read) read(p, n);
                            if (kind == traffic::update) update(p, n);
                            if (kind != traffic::copy) continue;
                            if (way == copy_with::ordinary) copy(p, half, n / 2);
                            if (way == copy_with::memcpy)
                                std::memcpy(half, p, static_cast<std::size_t>(n / 2) * sizeof(float));
                            if (way == copy_with::streaming) copy_streaming(p, half, n / 2);
                            benchmark::ClobberMemory();
                        }
                    });
                };
            }};
}

/// Best rate of the probe over that many calls.
double measure(const probe& p, int samples, timer t)
{
    const auto call = p.prepare();
    call();
    double best = 1e300;
    for (int i = 0; i < samples; ++i) best = std::min(best, seconds(call, t));
    return p.amount / best;
}

struct measured {
    ceilings values;
    std::vector<ceiling_row> rows;
};

measured measure_all(std::size_t threads)
{
    measured m;
    const std::string suffix = threads > 1 ? "/threads:" + std::to_string(threads) : "";
    // Several ways to do one thing: the fastest is the ceiling.
    const auto best = [&](const std::vector<probe>& ways, int samples) {
        double rate = 0;
        const probe* fastest = nullptr;
        for (const probe& way : ways) {
            const double measured = measure(way, samples, threads > 1 ? timer::wall : timer::core);
            if (measured > rate) {
                rate = measured;
                fastest = &way;
            }
        }
        m.rows.push_back({"ceiling/" + fastest->name + suffix, fastest->counter, rate, fastest->prepare});
        return rate;
    };
    m.values.f32.fma = best({fma_probe<float>(threads)}, 20);
    m.values.f32.exp = best({exp_probe<float, false>(threads), exp_probe<float, true>(threads)}, 20);
    m.values.f64.fma = best({fma_probe<double>(threads)}, 20);
    m.values.f64.exp = best({exp_probe<double, false>(threads), exp_probe<double, true>(threads)}, 20);

    const char* const levels[] = {"l1", "l2", "l3", "dram"};
    const double cores = static_cast<double>(threads);
    const auto& capacity = capacities();
    // Half a cache is safely inside it; of a shared L3 a quarter, as others use it too. For DRAM four times L3.
    const double sets[] = {capacity[0] / 2, capacity[1] / 2, capacity[2] / 4 / cores,
                           std::clamp(4 * capacity[2], 64e6, 512e6) / cores};
    for (std::size_t level = 0; level < 4; ++level) {
        const bool cached = level < 3;
        const int samples = cached ? 20 : 4;
        const auto way = [&](const char* name, traffic kind, copy_with how) {
            return memory_probe(std::string(levels[level]) + name, kind, how, sets[level], threads);
        };
        std::vector<probe> copies = {way("_copy", traffic::copy, copy_with::ordinary),
                                     way("_copy", traffic::copy, copy_with::memcpy)};
        if (!cached) copies.push_back(way("_copy", traffic::copy, copy_with::streaming));
        // The private caches of n cores hold n times as much.
        m.values.levels[level] = {
            capacity[level] * (level < 2 ? cores : 1.0),
            {best({way("_read", traffic::read, copy_with::ordinary)}, samples), best(copies, samples),
             best({way("_update", traffic::update, copy_with::ordinary)}, samples)}};
    }
    return m;
}

const measured& measured_on(std::size_t threads)
{
    static std::map<std::size_t, measured> known;
    const auto [place, fresh] = known.try_emplace(threads);
    if (fresh) place->second = measure_all(threads);
    return place->second;
}

}  // namespace

double ceilings::bandwidth(traffic kind, double working_set) const
{
    std::size_t level = 0;
    while (level + 1 < levels.size() && working_set > levels[level].capacity) ++level;
    return levels[level].bandwidth[static_cast<std::size_t>(kind)];
}

const ceilings& machine(std::size_t threads)
{
    return measured_on(threads).values;
}

std::vector<ceiling_row> ceiling_rows(std::size_t threads)
{
    return measured_on(threads).rows;
}

double burst()
{
    return seconds([] { multiply_add<float>(10'000); }, timer::wall);
}

}  // namespace bench
