#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace ssmkit {

/// An execution resource is anything callable as `resource(n, f)` that calls f(0) ... f(n - 1), in any order and on any
/// threads, and returns when all have returned. A wrapper of a few characters makes one of tbb::parallel_for or an OpenMP
/// loop. Where the resource has a member `concurrency()`, it tells how many calls can run at once; otherwise
/// std::thread::hardware_concurrency() does. Results do not depend on it.
template <class Resource>
concept execution_resource = requires(Resource& resource, void (*f)(std::size_t)) { resource(std::size_t{}, f); };

/// Runs everything on the calling thread: the default.
struct in_place {
    static constexpr std::size_t concurrency() { return 1; }

    template <class F>
    void operator()(std::size_t n, F&& f) const
    {
        for (std::size_t i = 0; i < n; ++i) f(i);
    }
};

/// A pool of n - 1 threads that works together with the calling one. Creating it is expensive, using it is not: keep it.
/// One call at a time; f must not throw.
class threads {
public:
    explicit threads(std::size_t n)
    {
        for (std::size_t i = 1; i < n; ++i) workers_.emplace_back([this] { work(); });
    }

    threads(const threads&) = delete;
    threads& operator=(const threads&) = delete;

    ~threads()
    {
        {
            const std::lock_guard lock(mutex_);
            stop_ = true;
        }
        wake_.notify_all();
        for (std::thread& worker : workers_) worker.join();
    }

    std::size_t concurrency() const { return workers_.size() + 1; }

    template <class F>
    void operator()(std::size_t n, F&& f)
    {
        if (n == 0) return;
        if (n == 1 || workers_.empty()) return in_place{}(n, f);
        {
            const std::lock_guard lock(mutex_);
            call_ = [](void* context, std::size_t i) { (*static_cast<std::remove_reference_t<F>*>(context))(i); };
            context_ = const_cast<void*>(static_cast<const void*>(std::addressof(f)));
            count_ = n;
            next_.store(0, std::memory_order_relaxed);
            busy_ = workers_.size();
            ++round_;
        }
        wake_.notify_all();
        drain();
        std::unique_lock lock(mutex_);
        done_.wait(lock, [this] { return busy_ == 0; });
    }

private:
    void drain()
    {
        for (std::size_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) call_(context_, i);
    }

    void work()
    {
        std::size_t seen = 0;
        for (;;) {
            {
                std::unique_lock lock(mutex_);
                wake_.wait(lock, [&] { return stop_ || round_ != seen; });
                if (stop_) return;
                seen = round_;
            }
            drain();
            const std::lock_guard lock(mutex_);
            if (--busy_ == 0) done_.notify_one();
        }
    }

    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    void (*call_)(void*, std::size_t) = nullptr;
    void* context_ = nullptr;
    std::size_t count_ = 0, round_ = 0, busy_ = 0;
    std::atomic<std::size_t> next_{0};
    bool stop_ = false;
};

/// How many calls of f the resource can have under way at once; a workspace holds scratch memory for that many.
template <execution_resource Resource>
std::size_t concurrency(const Resource& resource)
{
    if constexpr (requires { resource.concurrency(); }) {
        return resource.concurrency();
    } else {
        const std::size_t n = std::thread::hardware_concurrency();
        return n ? n : 1;
    }
}

namespace detail {

/// Spreads tasks 0 ... tasks - 1 over at most concurrency(resource) slots; f(task, slot) has its slot's scratch memory to
/// itself. Which slot runs a task is left to chance, so no result may depend on it.
template <class Resource, class F>
void run_tasks(Resource& resource, std::size_t tasks, F&& f)
{
    const std::size_t available = concurrency(resource);
    const std::size_t slots = available < tasks ? available : tasks;
    if (slots <= 1) {
        for (std::size_t task = 0; task < tasks; ++task) f(task, std::size_t{0});
        return;
    }
    std::atomic<std::size_t> next{0};
    resource(slots, [&](std::size_t slot) {
        for (std::size_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) f(task, slot);
    });
}

}  // namespace detail
}  // namespace ssmkit
