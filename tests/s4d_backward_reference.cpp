#include <ssmkit/reference/s4d_backward.hpp>

#include <complex>

#include <ssmkit/reference/s4d.hpp>

#include "catch.hpp"
#include "finite_differences.hpp"
#include "s4d_layer_problem.hpp"

namespace ssmkit::testing {

TEST_CASE("s4d_backward: the reference's gradients are those of its forward pass")
{
    for (unsigned bits = 0; bits < 1u << s4d_layer_setup::options; ++bits) {
        for (const auto method : {s4d_discretization::zoh, s4d_discretization::bilinear}) {
            s4d_layer_setup s = s4d_layer_setup{.length = 6, .dim = 2, .state = 2, .copies = 1}.with_options(bits);
            s.method = method;
            s.rate = bits % 3 == 0 ? 1 : 0.5;
            const s4d_layer_backward_problem<double> q(s);
            INFO(s.text() << " method " << static_cast<int>(method));
            reference::s4d_backward(q.args());
            const auto loss = [&] {
                reference::s4d(q.p.args());
                double sum = inner_product(q.p.y, q.dy);
                for_each_index(q.dfinal_state.view(), [&](auto... i) {
                    sum += (q.p.final_state(i...) * std::conj(q.dfinal_state(i...))).real();
                });
                return sum;
            };
            CHECK(gradient_error(q.p.u, q.du, loss) < 1e-9);
            CHECK(gradient_error(q.p.delta, q.ddelta, loss, 1e-4) < 1e-6);
            CHECK(gradient_error(q.p.A, q.dA, loss) < 1e-9);
            CHECK(gradient_error(q.p.B, q.dB, loss) < 1e-9);
            CHECK(gradient_error(q.p.C, q.dC, loss) < 1e-9);
            if (s.D) CHECK(gradient_error(q.p.D, q.dD, loss) < 1e-9);
            if (s.initial_state) CHECK(gradient_error(q.p.initial_state, q.dinitial_state, loss) < 1e-9);
        }
    }
}

}  // namespace ssmkit::testing
