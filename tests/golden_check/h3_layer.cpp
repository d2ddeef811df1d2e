#include <string>
#include <vector>

#include <ssmkit/args/fft_conv.hpp>
#include <ssmkit/args/fft_conv_backward.hpp>

#include "golden.hpp"

namespace {

using golden::index, golden::new_axis, golden::problem, golden::view;

/// A dense tensor of the layer.
template <class R>
struct rows {
    std::vector<R> numbers;
    index batch, dim, length;

    rows(index b, index d, index l) : numbers(static_cast<std::size_t>(b * d * l)), batch(b), dim(d), length(l) {}
    view<R, 3> of() { return {numbers.data(), batch, dim, length}; }
    view<const R, 3> read() const { return {numbers.data(), batch, dim, length}; }
};

/// H3 without its output projection (specification, section 10), channel h * d + i of head h:
///
///     q, k, v = u Wᵀ + b;   k ← shift * k + D_shift k;   s_ij = diag_h * (k_i v_j) + D_diag k_i v_j;   y_{jH + h} = Σ_i q_i s_ij
///
/// The products k_i v_j are the gated convolution of fft_conv, one call for every pair (i, j); its output gate is q_i.
template <class R>
class layer {
public:
    explicit layer(problem& problem_)
        : p(problem_),
          d(p.flag<index>("head_dim")),
          u(p.input<R>("u", 0, 1, 2)),
          batch(u.extent(0)),
          length(u.extent(1)),
          dim(u.extent(2)),
          heads(dim / d),
          q(project("q")),
          k0(project("k")),
          v(project("v")),
          k(batch, dim, length)
    {
        convolve(shift(k0.read(), k.of()));
        const auto y = p.output<R>("y", 0, 2, 1);
        rows<R> part(batch, heads, length);
        for (index j = 0; j < d; ++j) {
            rows<R> sum(batch, heads, length);
            for (index i = 0; i < d; ++i) {
                convolve(pair(i, j, part.of()));
                for (std::size_t n = 0; n < sum.numbers.size(); ++n) sum.numbers[n] += part.numbers[n];
            }
            for_all(sum.of(), [&](index b, index h, index t) { y(b, j * heads + h, t) = sum.of()(b, h, t); });
        }
        if (p.has("dout")) backward();
    }

private:
    template <class F>
    static void for_all(const view<R, 3>& v_, F&& f)
    {
        for (index b = 0; b < v_.extent(0); ++b) {
            for (index h = 0; h < v_.extent(1); ++h) {
                for (index t = 0; t < v_.extent(2); ++t) f(b, h, t);
            }
        }
    }

    /// Channel number i of every head.
    template <class T>
    view<T, 3> of_heads(const view<T, 3>& x, index i) const
    {
        return {x.pointer(0, i), {batch, heads, length}, {x.stride(0), x.stride(1) * d, x.stride(2)}};
    }

    rows<R> project(const std::string& name)
    {
        const auto W = p.input<R>("W" + name, 0, 1), bias = p.input<R>("b" + name, new_axis, 0);
        rows<R> out(u.extent(0), u.extent(2), u.extent(1));
        for_all(out.of(), [&](index b, index h, index t) {
            R sum = bias.data() ? bias(0, h) : R(0);
            for (index i = 0; i < u.extent(2); ++i) sum += W(h, i) * u(b, t, i);
            out.of()(b, h, t) = sum;
        });
        return out;
    }

    ssmkit::fft_conv_args<R> shift(const view<const R, 3>& from, const view<R, 3>& to)
    {
        return {.u = from,
                .k = p.input<R>("k_shift", new_axis, 0, 1),
                .D = p.input<R>("D_shift", new_axis, 0),
                .y = ssmkit::flattened(to, 1)};
    }

    ssmkit::fft_conv_args<R> pair(index i, index j, const view<R, 3>& to)
    {
        return {.u = of_heads(k.read(), i), .k = p.input<R>("k_diag", new_axis, 0, 1), .D = p.input<R>("D_diag", new_axis, 0),
                .input_gate = of_heads(v.read(), j), .output_gate = of_heads(q.read(), i), .y = ssmkit::flattened(to, 1)};
    }

    void convolve(const ssmkit::fft_conv_args<R>& a)
    {
        p.run(a);
    }

    void convolve_backward(const ssmkit::fft_conv_backward_args<R>& a)
    {
        p.run(a);
    }

    void backward()
    {
        const auto dy = p.input<R>("dout", 0, 2, 1);
        rows<R> dq(batch, dim, length), dk(batch, dim, length), dv(batch, dim, length);
        const auto dk_diag = p.output<R>("d_k_diag", new_axis, 0, 1);
        const auto dD_diag = p.output<R>("d_D_diag", new_axis, 0);
        rows<R> tap_sums(1, heads, dk_diag.extent(2)), skip_sums(1, heads, 1);
        for (index i = 0; i < d; ++i) {
            for (index j = 0; j < d; ++j) {
                rows<R> of_k(batch, heads, length), of_v(batch, heads, length), of_q(batch, heads, length);
                rows<R> taps(1, heads, dk_diag.extent(2)), skips(1, heads, 1);
                ssmkit::fft_conv_backward_args<R> a{.forward = pair(i, j, of_k.of()),
                                                    .dy = ssmkit::flattened(dy.slice(1, j * heads, heads), 1), .du = of_k.of(),
                                                    .dk = taps.of(), .dD = {skips.numbers, 1, heads}, .dinput_gate = of_v.of(),
                                                    .doutput_gate = of_q.of()};
                a.forward.y = {};
                convolve_backward(a);
                const auto add = [&](rows<R>& to, index channel, const rows<R>& from) {
                    const auto out = of_heads(to.of(), channel);
                    for_all(out, [&](index b, index h, index t) { out(b, h, t) += from.read()(b, h, t); });
                };
                add(dk, i, of_k);
                add(dv, j, of_v);
                add(dq, i, of_q);
                for (std::size_t n = 0; n < taps.numbers.size(); ++n) tap_sums.numbers[n] += taps.numbers[n];
                for (std::size_t n = 0; n < skips.numbers.size(); ++n) skip_sums.numbers[n] += skips.numbers[n];
            }
        }
        for_all(dk_diag, [&](index b, index h, index m) { dk_diag(b, h, m) = tap_sums.of()(b, h, m); });
        for (index h = 0; h < heads; ++h) dD_diag(0, h) = skip_sums.of()(0, h, 0);
        rows<R> dk0(batch, dim, length);
        ssmkit::fft_conv_backward_args<R> a{.forward = shift(k0.read(), k.of()),
                                            .dy = ssmkit::flattened(dk.read(), 1),
                                            .du = dk0.of(),
                                            .dk = p.output<R>("d_k_shift", new_axis, 0, 1),
                                            .dD = p.output<R>("d_D_shift", new_axis, 0)};
        a.forward.y = {};
        convolve_backward(a);
        const auto du = p.output<R>("d_u", 0, 1, 2);
        for_all(du, [&](index b, index t, index i) { du(b, t, i) = 0; });
        project_backward("q", dq, du);
        project_backward("k", dk0, du);
        project_backward("v", dv, du);
    }

    void project_backward(const std::string& name, const rows<R>& gradient, const view<R, 3>& du)
    {
        const auto W = p.input<R>("W" + name, 0, 1);
        const auto dW = p.output<R>("d_W" + name, 0, 1), db = p.output<R>("d_b" + name, new_axis, 0);
        for (index h = 0; h < dim; ++h) {
            for (index i = 0; i < dim; ++i) dW(h, i) = 0;
            R sum = 0;
            for (index b = 0; b < batch; ++b) {
                for (index t = 0; t < length; ++t) {
                    const R g = gradient.read()(b, h, t);
                    sum += g;
                    for (index i = 0; i < dim; ++i) {
                        dW(h, i) += g * u(b, t, i);
                        du(b, t, i) += g * W(h, i);
                    }
                }
            }
            if (db.data()) db(0, h) = sum;
        }
    }

    problem& p;
    index d;
    view<const R, 3> u;  // (batch, length, dim)
    index batch, length, dim, heads;
    rows<R> q, k0, v, k;
};

const golden::handler h3_layer("h3_layer", []<class T>(golden::element<T>, problem& p) { layer<ssmkit::compute_t<T>> whole(p); });

}  // namespace
