#include "catch.hpp"

#include <atomic>
#include <cstddef>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include <ssmkit/execution.hpp>

namespace {

/// How often each index was visited by `resource(n, ...)`.
template <class Resource>
std::vector<int> visits(Resource&& resource, std::size_t n)
{
    std::vector<std::atomic<int>> count(n);
    resource(n, [&](std::size_t i) { ++count.at(i); });
    return {count.begin(), count.end()};
}

/// A user's own resource without concurrency(): a thread a call, in reverse order.
struct thread_for_each_call {
    template <class F>
    void operator()(std::size_t n, F&& f) const
    {
        std::vector<std::thread> running;
        for (std::size_t i = n; i-- > 0;) running.emplace_back([&f, i] { f(i); });
        for (std::thread& t : running) t.join();
    }
};

}  // namespace

TEST_CASE("execution: every index is visited once")
{
    ssmkit::threads pool(3), alone(1), none(0);
    for (const std::size_t n : {0, 1, 2, 3, 4, 7, 1000}) {
        const std::vector<int> once(n, 1);
        CHECK(visits(ssmkit::in_place{}, n) == once);
        CHECK(visits(pool, n) == once);
        CHECK(visits(alone, n) == once);
        CHECK(visits(none, n) == once);
        if (n < 10) CHECK(visits(thread_for_each_call{}, n) == once);
    }
}

TEST_CASE("execution: a pool is used many times and its results are complete when the call returns")
{
    ssmkit::threads pool(4);
    std::vector<std::size_t> values(257);
    for (std::size_t round = 1; round <= 300; ++round) {
        pool(values.size(), [&](std::size_t i) { values[i] += i * round; });  // no atomics: the call orders it
        const std::size_t sum_of_rounds = round * (round + 1) / 2;
        REQUIRE(values[256] == 256 * sum_of_rounds);
        REQUIRE(values[1] == sum_of_rounds);
    }
}

TEST_CASE("execution: a pool works on several threads at once")
{
    ssmkit::threads pool(3);
    std::atomic<int> waiting{0};
    std::mutex mutex;
    std::set<std::thread::id> seen;
    pool(3, [&](std::size_t) {
        ++waiting;
        while (waiting < 3) std::this_thread::yield();  // passes only once three calls are under way
        const std::lock_guard lock(mutex);
        seen.insert(std::this_thread::get_id());
    });
    CHECK(seen.size() == 3);
    CHECK(seen.contains(std::this_thread::get_id()));
}

TEST_CASE("execution: a pool that was never used is torn down")
{
    for (int i = 0; i < 50; ++i) ssmkit::threads pool(3);
    SUCCEED();
}

TEST_CASE("execution: concurrency is what the resource says, or the machine's")
{
    CHECK(ssmkit::concurrency(ssmkit::in_place{}) == 1);
    CHECK(ssmkit::concurrency(ssmkit::threads(4)) == 4);
    CHECK(ssmkit::concurrency(ssmkit::threads(0)) == 1);
    CHECK(ssmkit::concurrency(thread_for_each_call{}) >= 1);
    STATIC_REQUIRE(ssmkit::execution_resource<ssmkit::threads>);
    STATIC_REQUIRE(ssmkit::execution_resource<const ssmkit::in_place>);
    STATIC_REQUIRE(ssmkit::execution_resource<thread_for_each_call>);
    STATIC_REQUIRE_FALSE(ssmkit::execution_resource<int>);
}

TEST_CASE("execution: run_tasks gives every task a slot that nobody else uses meanwhile")
{
    const auto check = [](auto&& resource, std::size_t tasks) {
        const std::size_t slots = ssmkit::concurrency(resource);
        std::vector<std::atomic<int>> ran(tasks);
        std::vector<std::atomic<bool>> taken(slots);
        std::atomic<bool> shared{false};
        ssmkit::detail::run_tasks(resource, tasks, [&](std::size_t task, std::size_t slot) {
            if (taken.at(slot).exchange(true)) shared = true;
            ++ran.at(task);
            std::this_thread::yield();
            taken.at(slot) = false;
        });
        CHECK_FALSE(shared);
        CHECK(std::vector<int>(ran.begin(), ran.end()) == std::vector<int>(tasks, 1));
    };
    for (const std::size_t tasks : {0, 1, 2, 5, 100}) {
        check(ssmkit::in_place{}, tasks);
        ssmkit::threads pool(3);
        check(pool, tasks);
        check(thread_for_each_call{}, tasks);
    }
}
