#include <ssmkit/args/s4d_kernel.hpp>

#include <memory>

#include <ssmkit/reference/s4d_kernel.hpp>

#include "../s4d_kernel_problem.hpp"
#include "harness.hpp"

namespace bench::device {
namespace {

template <class T>
std::shared_ptr<array<std::byte>> copied(const bench::array<T>& from)
{
    const auto to = std::make_shared<array<std::byte>>(static_cast<index>(from.size() * sizeof(T)));
    must(cudaMemcpy(to->data(), from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
    return to;
}

task kernel_task(const s4d_shape& s, double peer_ms)
{
    s4d_data<float> host(s);
    const auto delta = copied(host.delta), A = copied(host.A), B = copied(host.B), C = copied(host.C);
    const auto K = std::make_shared<array<float>>(s.dim * s.length);
    auto a = host.args();
    a.delta = {reinterpret_cast<const double*>(delta->data()), a.delta.extents(), a.delta.strides()};
    a.A = {reinterpret_cast<const std::complex<double>*>(A->data()), a.A.extents()};
    a.B = {reinterpret_cast<const std::complex<float>*>(B->data()), a.B.extents()};
    a.C = {reinterpret_cast<const std::complex<float>*>(C->data()), a.C.extents()};
    a.K = {K->data(), a.K.extents()};
    task t;
    t.run = [delta, A, B, C, K, run = call(a)](cudaStream_t stream) { run(stream); };
    t.needs.bytes = 4.0 * static_cast<double>(K->size());
    t.needs.fmas = 2.0 * static_cast<double>(K->size() * s.state);
    t.peer_seconds = 1e-3 * peer_ms;
    t.run(nullptr);
    must(cudaDeviceSynchronize());
    // The first channels, on the CPU.
    auto few = host.args();
    const index dim = std::min<index>(s.dim, 4);
    few.delta = few.delta.slice(0, 0, dim);
    few.A = few.A.slice(0, 0, dim);
    few.B = few.B.slice(0, 0, dim);
    few.C = few.C.slice(1, 0, dim);
    few.K = {host.K.data(), 1, dim, s.length};
    ssmkit::reference::s4d_kernel(few);
    const auto got = K->host(dim * s.length);
    t.mismatch = bench::mismatch("K", view<const float, 1>(got.data(), dim * s.length),
                                 view<const float, 1>(host.K.data(), dim * s.length));
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const auto& [s, peer] : {std::pair{s4d_shape{1024, 32, 4096}, 1.4013}, std::pair{s4d_shape{256, 32, 16384}, 1.3670},
                                  std::pair{s4d_shape{256, 32, 1024}, 0.0}, std::pair{s4d_shape{255, 31, 1000}, 0.0}}) {
        rows.push_back({"s4d_kernel", s.name(), "f32", [s = s, peer = peer] { return kernel_task(s, peer); }});
    }
}};

}  // namespace
}  // namespace bench::device
