#include <ssmkit/ssd.hpp>

#include <memory>

#include "ssd_problem.hpp"

namespace plain {  // plain/ssd.cpp

void ssd(std::size_t batch, std::size_t length, std::size_t nheads, std::size_t headdim, std::size_t groups, std::size_t state,
         const float* u, const float* delta, const float* A, const float* B, const float* C, const float* D, const float* z,
         float* h, float* y);

}  // namespace plain

namespace bench {
namespace {

/// A call of the library with all that it needs.
template <class T>
struct library_call {
    std::shared_ptr<ssd_problem<T>> problem;
    std::shared_ptr<array<T>> y = std::make_shared<array<T>>(problem->u.size());
    std::size_t threads = 1;
    ssmkit::ssd_args<T> a = problem->args(*y);
    std::shared_ptr<array<std::byte>> memory = std::make_shared<array<std::byte>>(ssmkit::ssd_workspace_size(a, threads));

    void operator()() const
    {
        if (threads == 1) {
            ssmkit::ssd(a, ssmkit::workspace(*memory));
        } else {
            ssmkit::ssd(a, ssmkit::workspace(*memory), pool(threads));
        }
    }
};

template <class T>
task ssmkit_task(const ssd_shape& shape, std::size_t threads)
{
    const auto p = std::make_shared<ssd_problem<T>>(shape);
    const library_call<T> call{.problem = p, .threads = threads};
    call();
    task t;
    t.run = call;
    t.needs = p->needs();
    array<T> expected = p->expected();
    t.mismatch = mismatch("y", call.a.y, p->args(expected).y);
    if (threads > 1) t.rivals.push_back({"times_one_thread", library_call<T>{.problem = p}});
    return t;
}

std::function<void()> plain_call(const std::shared_ptr<ssd_problem<float>>& p, const std::shared_ptr<array<float>>& y)
{
    const ssd_shape s = p->shape;
    const auto size = [](ssmkit::index extent) { return static_cast<std::size_t>(extent); };
    const auto h = std::make_shared<array<float>>(size(s.headdim * s.state));
    return [=] {
        plain::ssd(size(s.batch), size(s.length), size(s.nheads), size(s.headdim), size(s.groups), size(s.state), p->u.data(),
                   p->delta.data(), p->A.data(), p->B.data(), p->C.data(), s.gated ? p->D.data() : nullptr,
                   s.gated ? p->z.data() : nullptr, h->data(), y->data());
    };
}

task with_plain(const ssd_shape& shape)
{
    task t = ssmkit_task<float>(shape, 1);
    const auto p = std::make_shared<ssd_problem<float>>(shape);
    t.rivals.push_back({"times_plain", plain_call(p, std::make_shared<array<float>>(p->u.size()))});
    return t;
}

task plain_task(const ssd_shape& shape)
{
    const auto p = std::make_shared<ssd_problem<float>>(shape);
    const auto y = std::make_shared<array<float>>(p->u.size());
    task t;
    t.run = plain_call(p, y);
    t.needs = p->needs();
    t.run();
    array<float> expected = p->expected();
    t.mismatch = mismatch("y", p->args(*y).y, p->args(expected).y);
    return t;
}

// ---- Rows -----------------------------------------------------------------------------------------------------------

template <class T>
row ssmkit_row(const ssd_shape& shape, std::size_t threads, std::function<task()> prepare)
{
    return {"ssd", "ssmkit", shape.name(), dtype_name<T>(), threads, prepare};
}

/// The shape's time over that of another, of the same number of operations.
task relative_to(const ssd_shape& shape, const ssd_shape& other, const char* counter)
{
    task t = ssmkit_task<float>(shape, 1);
    t.rivals.push_back({counter, library_call<float>{.problem = std::make_shared<ssd_problem<float>>(other)}, true});
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (ssd_shape shape : {ssd_shape{1, 2048, 24, 64, 128}, {1, 2048, 80, 64, 128}, {4, 512, 24, 64, 128}, {1, 65536, 24, 64, 128}}) {
        for (const bool gated : {false, true}) {
            shape.gated = gated;
            rows.push_back(ssmkit_row<float>(shape, 1, [=] { return with_plain(shape); }));
            for (const std::size_t threads : thread_counts()) {
                if (threads > 1) rows.push_back(ssmkit_row<float>(shape, threads, [=] { return ssmkit_task<float>(shape, threads); }));
            }
            if (!gated) rows.push_back({"ssd", "plain", shape.name(), "f32", 1, [=] { return plain_task(shape); }});
        }
    }
    const ssd_shape shapes[] = {{1, 1024, 24, 32, 128}, {1, 1024, 24, 80, 128}, {1, 1024, 8, 256, 128}, {1, 1024, 24, 64, 16},
                                {1, 1024, 24, 64, 64},  {1, 1024, 24, 64, 256}, {1, 1024, 24, 64, 128, 8}, {1, 509, 7, 37, 51}};
    for (const ssd_shape& shape : shapes) rows.push_back(ssmkit_row<float>(shape, 1, [=] { return with_plain(shape); }));
    const ssd_shape usual{1, 2048, 24, 64, 128};
    ssd_shape strong = usual, long_chunk = usual, short_chunk = usual, recurrent = usual;
    strong.strong = true;
    long_chunk.chunk = 128;
    short_chunk.chunk = 32;
    recurrent.form = ssmkit::ssd_form::recurrent;
    rows.push_back(ssmkit_row<float>(strong, 1, [=] { return relative_to(strong, usual, "times_mild"); }));
    rows.push_back(ssmkit_row<float>(long_chunk, 1, [=] { return relative_to(long_chunk, short_chunk, "times_chunk_32"); }));
    rows.push_back(ssmkit_row<float>(recurrent, 1, [=] { return relative_to(recurrent, usual, "times_chunked"); }));
    for (const ssmkit::index length : {1, 4, 8, 16, 32, 64}) {  // where the two forms meet
        ssd_shape token_by_token{1, length, 24, 64, 128}, in_chunks = token_by_token;
        token_by_token.form = ssmkit::ssd_form::recurrent;
        in_chunks.form = ssmkit::ssd_form::chunked;
        rows.push_back(ssmkit_row<float>(token_by_token, 1, [=] { return relative_to(token_by_token, in_chunks, "times_chunked"); }));
    }
    rows.push_back(ssmkit_row<ssmkit::bfloat16>(usual, 1, [=] { return ssmkit_task<ssmkit::bfloat16>(usual, 1); }));
    rows.push_back(ssmkit_row<double>(usual, 1, [=] { return ssmkit_task<double>(usual, 1); }));
}};

}  // namespace
}  // namespace bench
