#pragma once

// What a benchmark file needs: describe a row, make its data, compare its answer. An operation is bench/<op>.cpp, with
// the compiler's best in bench/plain/<op>.cpp (built with -ffast-math, see CMakeLists.txt), and no list elsewhere.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <initializer_list>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include <ssmkit/element.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/view.hpp>
#include <ssmkit/workspace.hpp>

#include "ceilings.hpp"

namespace bench {

// ---- Time -----------------------------------------------------------------------------------------------------------

enum class timer {
    wall,  ///< for work that several threads share
    core   ///< what this thread spent computing: time that the core gave to other processes is not the code's
};

inline double now(timer t)
{
#if defined(CLOCK_THREAD_CPUTIME_ID)
    if (t == timer::core) {
        timespec time;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
        return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
    }
#endif
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Seconds that f takes.
template <class F>
double seconds(F&& f, timer t)
{
    const double start = now(t);
    f();
    return now(t) - start;
}

/// Seconds per call over `calls` calls in a row.
template <class F>
double seconds_per_call(F&& f, std::size_t calls, timer t)
{
    return seconds(
               [&] {
                   for (std::size_t i = 0; i < calls; ++i) f();
               },
               t) /
           static_cast<double>(calls);
}

/// How many calls fill `sample` seconds. Shorter samples than a millisecond measure the clock and the core's ramp-up.
template <class F>
std::size_t calls_per_sample(F&& f, double sample = 1e-3)
{
    std::size_t calls = 1;
    for (;;) {
        const double took = seconds_per_call(f, calls, timer::wall) * static_cast<double>(calls);
        if (took >= sample) return calls;
        const double wanted = static_cast<double>(calls) * std::min(10.0, 1.2 * sample / std::max(took, 1e-9));
        calls = std::max(calls + 1, static_cast<std::size_t>(wanted));
    }
}

inline double median(std::vector<double> values)
{
    std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
    return values[values.size() / 2];
}

/// Time of a divided by time of b, measured in turns so that the machine's drift cancels.
struct ratio {
    double median;   ///< of the rounds' ratios
    double of_best;  ///< the fastest sample of a over the fastest of b: close to a quiet machine
};

inline ratio time_ratio(const std::function<void()>& a, const std::function<void()>& b, timer t, double budget = 1.5)
{
    const std::size_t calls_a = calls_per_sample(a), calls_b = calls_per_sample(b);
    std::vector<double> ratios;
    double best_a = 1e300, best_b = 1e300, spent = 0;
    while (ratios.size() < 5 || (spent < budget && ratios.size() < 101)) {
        burst();
        const double time_a = seconds_per_call(a, calls_a, t);
        burst();
        const double time_b = seconds_per_call(b, calls_b, t);
        ratios.push_back(time_a / time_b);
        best_a = std::min(best_a, time_a);
        best_b = std::min(best_b, time_b);
        spent += time_a * static_cast<double>(calls_a) + time_b * static_cast<double>(calls_b);
    }
    return {median(ratios), best_a / best_b};
}

/// The thread pool for rows with n threads; started before the main thread was pinned, its workers on the other cores.
ssmkit::threads& pool(std::size_t n);

/// 1 and, where the machine has that many cores, 2: the thread counts of the rows.
const std::vector<std::size_t>& thread_counts();

// ---- What a row does ------------------------------------------------------------------------------------------------

/// What an operation cannot avoid, from its definition: its floor is the larger of the time for the arithmetic and the
/// time for the bytes, at the ceilings of this machine. Counts are for one call and count elements, not instructions.
/// Exponentials and multiply-adds are added up, as if one unit did both. A core with pipes of their own for additions (Zen 4)
/// overlaps them in part: there, a scan can come out a little above its limit, limit_fraction 1.
struct work {
    double updates = 0;         ///< state updates, or the operation's natural unit
    double token_channels = 0;  ///< tokens times channels, where that means something
    double exps = 0;            ///< exp2 of the fast kind
    double fmas = 0;            ///< all other arithmetic that keeps a multiply-add unit busy
    double bytes = 0;           ///< least traffic: each input read once, each output written once
    double working_set = 0;  ///< bytes that a call touches, which decides the memory they come from; 0: same as bytes
    traffic kind = traffic::copy;

    void add(const work& other)
    {
        updates += other.updates;
        token_channels += other.token_channels;
        exps += other.exps;
        fmas += other.fmas;
        bytes += other.bytes;
        working_set += other.working_set;
    }

    double floor_seconds(std::size_t threads, bool f64) const
    {
        const ceilings& top = machine(threads);
        const ceilings::arithmetic& rate = f64 ? top.f64 : top.f32;
        return std::max(exps / rate.exp + fmas / rate.fma,
                        bytes / top.bandwidth(kind, working_set > 0 ? working_set : bytes));
    }
};

/// Something that the row is compared with, in turns: `counter` = time of the rival / time of the row, or the inverse,
/// times `scale`.
struct rival {
    std::string counter;
    std::function<void()> run;
    bool inverse = false;
    double scale = 1;
};

/// A row made ready.
struct task {
    std::function<void()> run;
    work needs;
    std::string mismatch;  ///< why the answer is wrong; empty if it agrees with the reference
    std::vector<rival> rivals;
    std::function<void()> before;  ///< if given: runs before every call, untimed, and every call is a sample of its own
    std::vector<std::pair<std::string, double>> counters;  ///< anything else worth a column
};

struct row {
    std::string op, variant, shape, dtype;
    std::size_t threads = 1;
    std::function<task()> prepare;

    std::string name() const
    {
        return op + "/" + variant + "/" + shape + "/" + dtype + "/threads:" + std::to_string(threads);
    }
};

inline std::vector<row>& rows()
{
    static std::vector<row> all;
    return all;
}

/// `const bench::registration here{[](std::vector<bench::row>& rows) { ... }};` at the end of a benchmark file.
struct registration {
    template <class F>
    explicit registration(F&& add_rows)
    {
        add_rows(rows());
    }
};

// ---- Data -----------------------------------------------------------------------------------------------------------

template <class T>
struct aligned_allocator {
    using value_type = T;
    aligned_allocator() = default;
    template <class U>
    aligned_allocator(const aligned_allocator<U>&)
    {
    }
    T* allocate(std::size_t n) { return static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64})); }
    void deallocate(T* p, std::size_t) { ::operator delete (p, std::align_val_t{64}); }
    bool operator==(const aligned_allocator&) const { return true; }
};

template <class T>
using array = std::vector<T, aligned_allocator<T>>;

/// Elements of these extents.
template <class... Extents>
std::size_t count(Extents... extents)
{
    return (std::size_t{1} * ... * static_cast<std::size_t>(extents));
}

/// Extents as the rows' names have them: 8x256x64.
inline std::string by(std::initializer_list<ssmkit::index> extents)
{
    std::string text;
    for (const ssmkit::index n : extents) text += (text.empty() ? "" : "x") + std::to_string(n);
    return text;
}

template <class T>
constexpr const char* dtype_name()
{
    if constexpr (std::is_same_v<T, double>) return "f64";
    if constexpr (std::is_same_v<T, float>) return "f32";
    if constexpr (std::is_same_v<T, ssmkit::bfloat16>) return "bf16";
    return "f16";
}

/// Uniform in [low, high): the seed's own sequence (Steele, Lea and Flood's SplitMix64), the same on every machine.
template <class T>
array<T> fill(std::size_t n, double low, double high, std::uint64_t seed)
{
    using real = ssmkit::compute_t<T>;
    array<T> values(n);
    std::uint64_t state = seed * 0x9e3779b97f4a7c15u;
    for (T& value : values) {
        std::uint64_t bits = state += 0x9e3779b97f4a7c15u;
        bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
        bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
        const double unit = static_cast<double>((bits ^ (bits >> 31)) >> 11) * 0x1p-53;
        value = T(static_cast<real>(low + (high - low) * unit));
    }
    return values;
}

/// Complex numbers with both parts so.
template <class R>
array<std::complex<R>> fill_complex(std::size_t n, double low, double high, std::uint64_t seed)
{
    const array<R> parts = fill<R>(2 * n, low, high, seed);
    array<std::complex<R>> values(n);
    for (std::size_t i = 0; i < n; ++i) values[i] = {parts[2 * i], parts[2 * i + 1]};
    return values;
}

/// call(memory), or call(memory, pool) for more threads than one, with `bytes` of memory of its own for every call.
template <class F>
std::function<void()> with_workspace(std::size_t bytes, std::size_t threads, F call)
{
    const auto memory = std::make_shared<array<std::byte>>(bytes);
    return [=] {
        if (threads == 1) return call(ssmkit::workspace(*memory));
        call(ssmkit::workspace(*memory), pool(threads));
    };
}

/// The same for operations without a workspace: call() or call(pool).
template <class F>
std::function<void()> with_threads(std::size_t threads, F call)
{
    return [=] {
        if (threads == 1) return call();
        call(pool(threads));
    };
}

/// The row of a problem D, a struct of arrays: `run`, which works on d, timed once its answer agrees with the oracle's on a copy of
/// the problem, as compare(got, expected) finds.
template <class D, class Oracle, class Compare>
task checked(const std::shared_ptr<D>& d, const work& needs, std::function<void()> run, Oracle oracle, Compare compare)
{
    D expected = *d;
    oracle(expected);
    run();
    task t;
    t.run = std::move(run);
    t.needs = needs;
    t.mismatch = compare(*d, expected);
    return t;
}

/// Values that are stored neither as double nor as float, widened.
inline double widened(double x)
{
    return x;
}
inline double widened(ssmkit::bfloat16 x)
{
    return static_cast<double>(static_cast<float>(x));
}
inline double widened(ssmkit::float16 x)
{
    return static_cast<double>(static_cast<float>(x));
}

/// The largest difference relative to the largest value expected, accepted up to 2e-5 for float, 1e-10 for double and
/// 2e-2 for 16-bit storage, `allowance` times that: enough to tell a wrong answer from rounding. Empty if it fits,
/// otherwise what does not.
template <class T, std::size_t Rank>
std::string mismatch(const char* name, const ssmkit::view<T, Rank>& got, const ssmkit::view<T, Rank>& expected,
                     double allowance = 1)
{
    using stored = std::remove_cv_t<T>;
    constexpr double bound = std::is_same_v<stored, double> ? 1e-10 : std::is_same_v<stored, float> ? 2e-5 : 2e-2;
    double scale = 0, worst = 0;
    const auto visit = [&](const auto& self, const auto& x, const auto& y) -> void {
        for (ssmkit::index i = 0; i < y.extent(0); ++i) {
            if constexpr (std::remove_cvref_t<decltype(y)>::rank > 1) {
                self(self, x[i], y[i]);
            } else {
                scale = std::max(scale, std::abs(widened(y[i])));
                const double error = std::abs(widened(x[i]) - widened(y[i]));
                if (!(error <= worst)) worst = error;  // a NaN stays
            }
        }
    };
    visit(visit, got, expected);
    if (worst <= allowance * bound * scale) return {};
    return std::string(name) + " is off by " + std::to_string(worst) + " where values reach " + std::to_string(scale);
}

/// The same for whole arrays, complex numbers by their parts.
template <class E>
std::string mismatch(const char* name, const array<E>& got, const array<E>& expected, double allowance = 1)
{
    using part = std::remove_cvref_t<decltype(std::real(E{}))>;
    const auto parts = [](const array<E>& x) {
        return ssmkit::view<const part, 1>(reinterpret_cast<const part*>(x.data()),
                                           static_cast<ssmkit::index>(x.size() * sizeof(E) / sizeof(part)));
    };
    return mismatch(name, parts(got), parts(expected), allowance);
}

/// The allowance of doubles that are sums of floats: they are held to what floats are.
inline constexpr double of_floats = 2e5;

/// The first of several findings.
inline std::string first_of(std::initializer_list<std::string> mismatches)
{
    for (const std::string& found : mismatches) {
        if (!found.empty()) return found;
    }
    return {};
}

}  // namespace bench
