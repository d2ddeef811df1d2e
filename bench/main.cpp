// Runs every row; takes the flags of Google Benchmark (--benchmark_filter=, --benchmark_format=json, ...).
//
// A row is timed in samples of at least a millisecond, each after a burst of arithmetic that brings the core up to
// speed; samples whose burst was slow met other users of the core and are dropped. Counters come from the median of the
// rest; with one thread they count the time that the thread spent computing, with more the wall clock.

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <thread>

#include <benchmark/benchmark.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include "harness.hpp"

#if SSMKIT_BENCH_CUDA
namespace bench::device {
void register_rows();  // cuda/harness.cu
}
#endif

namespace bench {
namespace {

#if defined(__linux__)
/// Leaves this thread, and those that it starts from now on, the first allowed core only or all the others.
void use_cores(const cpu_set_t& allowed, bool first_only)
{
    cpu_set_t chosen;
    CPU_ZERO(&chosen);
    bool first = true;
    for (int core = 0; core < CPU_SETSIZE; ++core) {
        if (!CPU_ISSET(core, &allowed)) continue;
        if (first == first_only) CPU_SET(core, &chosen);
        first = false;
    }
    sched_setaffinity(0, sizeof chosen, &chosen);
}
#endif

std::map<std::size_t, ssmkit::threads>& pools()
{
    static std::map<std::size_t, ssmkit::threads> all;
    return all;
}

/// The main thread on the first core, the pools' workers on the others.
void start_threads()
{
#if defined(__linux__)
    cpu_set_t allowed;
    sched_getaffinity(0, sizeof allowed, &allowed);
    if (CPU_COUNT(&allowed) > 1) use_cores(allowed, false);
#endif
    for (const std::size_t n : thread_counts()) {
        if (n > 1) pools().try_emplace(n, n);
    }
#if defined(__linux__)
    use_cores(allowed, true);
#endif
}

/// What is known of the row that runs now. Google Benchmark calls a row several times to find its number of iterations;
/// data, answers and comparisons are needed once.
struct ready_row {
    const row* owner = nullptr;
    task what;
    std::size_t calls = 1;
    std::vector<std::pair<std::string, double>> comparisons;
};

ready_row& make_ready(const row& r)
{
    static ready_row ready;
    if (ready.owner == &r) return ready;
    ready = {};  // frees the last row's data before the next is made
    ready.what = r.prepare();
    ready.owner = &r;
    if (!ready.what.mismatch.empty() || !ready.what.run) return ready;
    if (!ready.what.before) ready.calls = calls_per_sample(ready.what.run);
    const timer t = r.threads > 1 ? timer::wall : timer::core;
    for (const rival& other : ready.what.rivals) {
        const ratio times =
            other.inverse ? time_ratio(ready.what.run, other.run, t) : time_ratio(other.run, ready.what.run, t);
        ready.comparisons.emplace_back(other.counter, other.scale * times.median);
        ready.comparisons.emplace_back(other.counter + "_best", other.scale * times.of_best);
    }
    return ready;
}

struct sample {
    double time, burst;
};

/// Times of the samples that had the core to themselves.
std::vector<double> undisturbed(const std::vector<sample>& samples)
{
    double fastest = 1e300;
    for (const sample& s : samples) fastest = std::min(fastest, s.burst);
    std::vector<double> times;
    for (const sample& s : samples) {
        if (s.burst <= 1.15 * fastest) times.push_back(s.time);
    }
    return times;
}

void run_row(benchmark::State& state, const row& r)
{
    ready_row& ready = make_ready(r);
    const task& what = ready.what;
    if (!what.mismatch.empty()) return state.SkipWithError(what.mismatch.c_str());

    const timer t = r.threads > 1 ? timer::wall : timer::core;
    std::vector<sample> samples;
    while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(ready.calls))) {
        state.PauseTiming();
        sample s{0, burst()};
        if (what.before) what.before();
        state.ResumeTiming();
        s.time = seconds_per_call(what.run, ready.calls, t);
        samples.push_back(s);
    }
    const std::vector<double> times = undisturbed(samples);
    const double time = median(times);
    state.counters["ns_median"] = 1e9 * time;
    state.counters["ns_min"] = 1e9 * *std::min_element(times.begin(), times.end());
    state.counters["updates_per_second"] = what.needs.updates / time;
    state.counters["bytes_per_second"] = what.needs.bytes / time;
    if (what.needs.token_channels > 0) state.counters["ns_per_token_channel"] = 1e9 * time / what.needs.token_channels;
    state.counters["limit_fraction"] = what.needs.floor_seconds(r.threads, r.dtype == "f64") / time;
    for (const auto& [name, value] : ready.comparisons) state.counters[name] = value;
    for (const auto& [name, value] : what.counters) state.counters[name] = value;
}

void run_ceiling(benchmark::State& state, const ceiling_row& r)
{
    const auto call = r.prepare();
    for (auto _ : state) call();
    state.counters[r.counter] = r.ceiling;
}

void register_all()
{
    static std::vector<ceiling_row> ceilings;
    for (const std::size_t n : thread_counts()) {
        const auto more = ceiling_rows(n);
        ceilings.insert(ceilings.end(), more.begin(), more.end());
    }
    for (const ceiling_row& r : ceilings) {
        benchmark::RegisterBenchmark(r.name.c_str(), [&r](benchmark::State& state) {
            run_ceiling(state, r);
        })->Unit(benchmark::kMicrosecond);
        // Also in the head of the output, where a filter does not remove it.
        benchmark::AddCustomContext(r.name, std::to_string(r.ceiling * 1e-9) + "e9 " + r.counter);
    }
    // Files register in the linker's order; by name of the operation, then as the file has it.
    std::stable_sort(rows().begin(), rows().end(), [](const row& a, const row& b) { return a.op < b.op; });
    for (const row& r : rows()) {
        benchmark::RegisterBenchmark(r.name().c_str(), [&r](benchmark::State& state) {
            run_row(state, r);
        })->Unit(benchmark::kMicrosecond);
    }
}

}  // namespace

ssmkit::threads& pool(std::size_t n)
{
    return pools().at(n);
}

const std::vector<std::size_t>& thread_counts()
{
    static const std::vector<std::size_t> counts =
        std::thread::hardware_concurrency() > 1 ? std::vector<std::size_t>{1, 2} : std::vector<std::size_t>{1};
    return counts;
}

}  // namespace bench

int main(int argc, char** argv)
{
    char tabular[] = "--benchmark_counters_tabular=true";  // columns, unless the command line says otherwise
    std::vector<char*> arguments(argv, argv + argc);
    arguments.insert(arguments.begin() + 1, tabular);
    int count = static_cast<int>(arguments.size());
    arguments.push_back(nullptr);
    benchmark::Initialize(&count, arguments.data());
    if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;
    bench::start_threads();
    bench::register_all();
#if SSMKIT_BENCH_CUDA
    bench::device::register_rows();
#endif
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
}
