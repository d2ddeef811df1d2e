#include <algorithm>
#include <memory>
#include <vector>

#include <ssmkit/args/ssd_backward.hpp>
#include <ssmkit/reference/ssd_backward.hpp>

#include "harness.hpp"

namespace bench::device {
namespace {

struct ssd_gradient_shape {
    index batch, length, nheads, headdim, state, groups;

    std::string text() const
    {
        return std::to_string(batch) + "x" + std::to_string(length) + "x" + std::to_string(nheads) + "x" + std::to_string(headdim) +
               "x" + std::to_string(state) + "x" + std::to_string(groups);
    }
};

/// The authors' benchmark: D and delta_bias and softplus on, no gate; every gradient.
template <class T>
struct ssd_gradient_data {
    explicit ssd_gradient_data(const ssd_gradient_shape& shape) : s(shape) {}

    ssd_gradient_shape s;
    index tokens = s.batch * s.length, heads = tokens * s.nheads, channels = heads * s.headdim, maps = tokens * s.groups * s.state;
    array<T> u{channels, -1, 1, 1}, delta{heads, -4, 0, 2}, dy{channels, -1, 1, 3}, B{maps, -1, 1, 4}, C{maps, -1, 1, 5};
    array<T> du{channels}, ddelta{heads};
    array<float> A{s.nheads, -16, -1, 6}, D{s.nheads, -1, 1, 7}, bias{s.nheads, -1, 0, 8};
    array<float> dB{maps}, dC{maps}, dA{s.nheads}, dD{s.nheads}, dbias{s.nheads};

    ssmkit::ssd_backward_args<T> args() const
    {
        const index b = s.batch, l = s.length;
        return {.forward = {.u = {u.data(), b, l, s.nheads, s.headdim},
                            .delta = {delta.data(), b, l, s.nheads},
                            .A = {A.data(), s.nheads},
                            .B = {B.data(), b, l, s.groups, s.state},
                            .C = {C.data(), b, l, s.groups, s.state},
                            .D = ssmkit::tied_over_head(ssmkit::view<const float, 1>(D.data(), s.nheads), s.headdim),
                            .delta_bias = {bias.data(), s.nheads},
                            .delta_softplus = true},
                .dy = {dy.data(), b, l, s.nheads, s.headdim},
                .du = {du.data(), b, l, s.nheads, s.headdim},
                .ddelta = {ddelta.data(), b, l, s.nheads},
                .dA = {dA.data(), s.nheads},
                .dB = {dB.data(), b, l, s.groups, s.state},
                .dC = {dC.data(), b, l, s.groups, s.state},
                .dD = ssmkit::summed_over_head(ssmkit::view<float, 1>(dD.data(), s.nheads), s.headdim),
                .ddelta_bias = {dbias.data(), s.nheads}};
    }

    /// The first row's first tokens, whose dC no later token has a say in, and the last row's last ones, of which no earlier token has
    /// one in du and dB: on the CPU.
    std::string mismatch() const
    {
        std::string wrong = compare(0, true);
        return wrong.empty() ? compare(tokens - compared(), false) : wrong;
    }

private:
    index compared() const { return std::min<index>(s.length, 100); }

    std::string compare(index first, bool begins) const
    {
        const index length = compared(), wide = s.nheads * s.headdim, map = s.groups * s.state;
        const auto part = [&]<class E>(const array<E>& of, index width) {
            std::vector<E> copy(static_cast<std::size_t>(length * width));
            must(cudaMemcpy(copy.data(), of.data() + first * width, copy.size() * sizeof(E), cudaMemcpyDeviceToHost));
            return copy;
        };
        const auto hu = part(u, wide), hdy = part(dy, wide), hdelta = part(delta, s.nheads), hB = part(B, map), hC = part(C, map);
        const auto hA = A.host(), hD = D.host(), hbias = bias.host();
        auto got_du = part(du, wide);
        auto got_dB = part(dB, map), got_dC = part(dC, map);
        std::vector<T> expected_du(got_du.size());
        std::vector<float> expected_dB(got_dB.size()), expected_dC(got_dC.size());
        ssmkit::ssd_backward_args<T> a = args();
        a.forward.u = {hu.data(), 1, length, s.nheads, s.headdim};
        a.forward.delta = {hdelta.data(), 1, length, s.nheads};
        a.forward.A = {hA.data(), s.nheads};
        a.forward.B = {hB.data(), 1, length, s.groups, s.state};
        a.forward.C = {hC.data(), 1, length, s.groups, s.state};
        a.forward.D = ssmkit::tied_over_head(ssmkit::view<const float, 1>(hD.data(), s.nheads), s.headdim);
        a.forward.delta_bias = {hbias.data(), s.nheads};
        a.dy = {hdy.data(), 1, length, s.nheads, s.headdim};
        a.ddelta = {}, a.dA = {}, a.dD = {}, a.ddelta_bias = {}, a.dB = {}, a.dC = {}, a.du = {};
        if (begins) {
            a.dC = {expected_dC.data(), 1, length, s.groups, s.state};
        } else {
            a.du = {expected_du.data(), 1, length, s.nheads, s.headdim};
            a.dB = {expected_dB.data(), 1, length, s.groups, s.state};
        }
        ssmkit::reference::ssd_backward(a);
        constexpr double allowance = sizeof(T) == 2 && !std::is_same_v<T, ssmkit::float16> ? 1000 : 2;  // of sums, which are float
        const auto differs = [&]<class E>(const char* name, std::vector<E>& got, std::vector<E>& of, index inner, index last, double more) {
            return bench::mismatch(name, ssmkit::view<const E, 4>(got.data(), 1, length, inner, last),
                                   ssmkit::view<const E, 4>(of.data(), 1, length, inner, last), more);
        };
        if (begins) return differs("dC", got_dC, expected_dC, s.groups, s.state, allowance);
        std::string wrong = differs("du", got_du, expected_du, s.nheads, s.headdim, 1);
        return wrong.empty() ? differs("dB", got_dB, expected_dB, s.groups, s.state, allowance) : wrong;
    }
};

template <class T>
task ssd_backward_task(const ssd_gradient_shape& s, double peer_ms)
{
    const auto d = std::make_shared<ssd_gradient_data<T>>(s);
    task t;
    t.run = [d, run = call(d->args())](cudaStream_t stream) { run(stream); };
    const auto heads = static_cast<double>(d->heads), channels = static_cast<double>(d->channels), state = static_cast<double>(s.state);
    const auto maps = static_cast<double>(d->maps);
    t.needs.bytes = sizeof(T) * (3 * channels + 2 * heads + 2 * maps) + 4 * 2 * maps;
    // Both states of a chunk, and three products with them; half the pairs of a chunk of 64 for dp·u and w, and, once a group, for
    // C B^T, dB and dC.
    constexpr double chunk = 64;
    const double groups = heads * static_cast<double>(s.groups) / static_cast<double>(s.nheads);
    t.needs.tensor_flops = 10 * channels * state + 2 * channels * chunk + 3 * groups * chunk * state;
    if (sizeof(T) == 4) {
        t.needs.tensor_flops *= 3;  // products of tf32 for each of float
        t.needs.tensor_rate = 495e12;
    }
    t.needs.exps = heads * chunk / 2;
    t.peer_seconds = 1e-3 * peer_ms;
    t.run(nullptr);
    must(cudaDeviceSynchronize());
    t.mismatch = d->mismatch();
    return t;
}

const registration here{[](std::vector<row>& rows) {
    struct known {
        ssd_gradient_shape s;
        double peer_f32, peer_bf16;
    };
    for (const known& k : {known{{1, 2048, 24, 64, 128, 1}, 0.2911, 0.2196},
                           {{8, 2048, 24, 64, 128, 1}, 1.3757, 0.8957},
                           {{1, 512, 80, 64, 128, 1}, 0.2657, 0.2035},
                           {{8, 2048, 80, 64, 128, 1}, 3.9818, 2.4899},
                           {{1, 131072, 24, 64, 128, 1}, 10.3957, 6.7953},
                           {{1, 16384, 80, 64, 128, 1}, 3.8428, 3.1103},
                           {{2, 4096, 128, 64, 128, 8}, 3.3079, 2.4756}}) {
        rows.push_back({"ssd_backward", k.s.text(), "f32", [k] { return ssd_backward_task<float>(k.s, k.peer_f32); }});
        rows.push_back({"ssd_backward", k.s.text(), "bf16", [k] { return ssd_backward_task<ssmkit::bfloat16>(k.s, k.peer_bf16); }});
    }
}};

}  // namespace
}  // namespace bench::device
