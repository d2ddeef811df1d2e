#include <ssmkit/causal_conv1d_varlen_states.hpp>

#include <string>
#include <vector>

#include "catch.hpp"
#include "random_problem.hpp"

namespace ssmkit::testing {

TEMPLATE_TEST_CASE("causal_conv1d_varlen_states: the last inputs of each sequence, zeros before it", "", float, double, bfloat16)
{
    random numbers(5);
    const std::vector<index> cu_seqlens = {0, 3, 3, 4, 9, 10, 30};
    for (const layout form : all_layouts) {
        for (const index state_len : {0, 1, 3, 4, 7}) {
            tensor<TestType, 2> x({30, 17}, form);
            x.fill(numbers, {-2, 2});
            const tensor<TestType, 3> states({6, 17, state_len}, form);
            threads pool(2);
            causal_conv1d_varlen_states<TestType>({.x = x.view(), .cu_seqlens = {cu_seqlens, 6 + 1}, .states = states.view()}, pool);
            for_each_index(states.view(), [&](index i, index c, index j) {
                const index token = cu_seqlens[static_cast<std::size_t>(i) + 1] - state_len + j;
                const bool own = token >= cu_seqlens[static_cast<std::size_t>(i)];
                REQUIRE(convert<double>(states(i, c, j)) == (own ? convert<double>(x(token, c)) : 0.0));
            });
            CHECK(states.gaps_untouched());
        }
    }
}

TEST_CASE("causal_conv1d_varlen_states: names the argument that does not fit")
{
    const std::vector<float> x(30);
    std::vector<float> states(30);
    const auto complaint = [&](const std::vector<index>& ends) -> std::string {
        try {
            causal_conv1d_varlen_states<float>(
                {.x = {x, 10, 3}, .cu_seqlens = {ends.data(), static_cast<index>(ends.size())}, .states = {states, 2, 3, 4}});
        } catch (const shape_error& e) {
            return e.what();
        }
        return "";
    };
    CHECK(complaint({0, 4, 10}).empty());
    for (const auto& ends : {std::vector<index>{0, 11, 10}, {0, 5, 4}, {0, 4, 11}, {-1, 4, 10}, {}}) {
        CHECK(complaint(ends).find("causal_conv1d_varlen_states: cu_seqlens") == 0);
    }
    CHECK(complaint({0, 4}).find("causal_conv1d_varlen_states: states") == 0);
}

}  // namespace ssmkit::testing
