// Built with -fno-exceptions: a mistake reaches the handler that the program has set, with the text that an exception has.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <ssmkit/ssmkit.hpp>

namespace {

[[noreturn]] void judge(const char* message)
{
    constexpr const char* expected =
        "selective_state_update: delta has shape (1, 1, 2), expected (batch = 1, nheads = 1, headdim = 1)";
    std::printf("%s\n", message);
    std::exit(std::strcmp(message, expected) == 0 ? 0 : 1);
}

}  // namespace

int main()
{
    ssmkit::set_error_handler(judge);
    std::vector<float> h{2}, u{5}, delta{1, 1}, A{-1}, B{3}, C{7}, y{0};
    ssmkit::selective_state_update_args<float> step;
    step.h = {h, 1, 1, 1, 1};
    step.u = {u, 1, 1, 1};
    step.delta = {delta, 1, 1, 2};  // one too many
    step.A = {A, 1, 1, 1};
    step.B = {B, 1, 1, 1};
    step.C = {C, 1, 1, 1};
    step.y = {y, 1, 1, 1};
    ssmkit::selective_state_update(step);
    return 2;  // not told at all
}
