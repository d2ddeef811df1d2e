#include <ssmkit/args/s4d_kernel_backward.hpp>

#include <memory>

#include <ssmkit/reference/s4d_kernel_backward.hpp>

#include "../s4d_kernel_problem.hpp"
#include "harness.hpp"

namespace bench::device {
namespace {

template <class T>
std::shared_ptr<array<T>> copied(const bench::array<T>& from)
{
    const auto to = std::make_shared<array<T>>(static_cast<index>(from.size()));
    must(cudaMemcpy(to->data(), from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
    return to;
}

template <class R>
view<const R, 1> parts(const std::complex<R>* p, index n)
{
    return {reinterpret_cast<const R*>(p), 2 * n};
}

task backward_task(const s4d_shape& s)
{
    s4d_data<float> host(s, true);
    const auto delta = copied(host.delta), ddelta = copied(host.ddelta);
    const auto A = copied(host.A), dA = copied(host.dA);
    const auto B = copied(host.B), C = copied(host.C), dB = copied(host.dB), dC = copied(host.dC);
    const auto dK = copied(host.dK);
    auto a = host.backward_args();
    a.forward.delta = {delta->data(), a.forward.delta.extents(), a.forward.delta.strides()};
    a.forward.A = {A->data(), a.forward.A.extents()};
    a.forward.B = {B->data(), a.forward.B.extents()};
    a.forward.C = {C->data(), a.forward.C.extents()};
    a.forward.K = {};
    a.dK = {dK->data(), a.dK.extents()};
    a.ddelta = {ddelta->data(), a.ddelta.extents(), a.ddelta.strides()};
    a.dA = {dA->data(), a.dA.extents()};
    a.dB = {dB->data(), a.dB.extents()};
    a.dC = {dC->data(), a.dC.extents()};
    task t;
    t.run = [delta, ddelta, A, dA, B, C, dB, dC, dK, run = call(a)](cudaStream_t stream) { run(stream); };
    t.needs.bytes = 4.0 * static_cast<double>(dK->size());
    t.needs.fmas = 4.0 * static_cast<double>(dK->size() * s.state);
    t.run(nullptr);
    must(cudaDeviceSynchronize());
    // The first channels, on the CPU.
    const index dim = std::min<index>(s.dim, 4), poles = dim * s.state;
    auto few = host.backward_args();
    few.forward.delta = few.forward.delta.slice(0, 0, dim);
    few.forward.A = few.forward.A.slice(0, 0, dim);
    few.forward.B = few.forward.B.slice(0, 0, dim);
    few.forward.C = few.forward.C.slice(1, 0, dim);
    few.forward.K = {};
    few.dK = few.dK.slice(1, 0, dim);
    few.ddelta = few.ddelta.slice(0, 0, dim);
    few.dA = few.dA.slice(0, 0, dim);
    few.dB = few.dB.slice(0, 0, dim);
    few.dC = few.dC.slice(1, 0, dim);
    ssmkit::reference::s4d_kernel_backward(few);
    const auto got_C = dC->host(poles);
    const auto got_A = dA->host(poles);
    t.mismatch = bench::mismatch("dC", parts(got_C.data(), poles), parts(host.dC.data(), poles));
    if (t.mismatch.empty())  // of float sums
        t.mismatch = bench::mismatch("dA", parts(got_A.data(), poles), parts(host.dA.data(), poles), 1e5);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const s4d_shape& s : {s4d_shape{1024, 32, 4096}, {256, 32, 16384}, {256, 32, 1024}, {255, 31, 1000}}) {
        rows.push_back({"s4d_kernel_backward", s.name(), "f32", [s] { return backward_task(s); }});
    }
}};

}  // namespace
}  // namespace bench::device
