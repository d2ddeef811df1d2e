#pragma once

#include <cstddef>
#include <string>

#include <ssmkit/execution.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "diagonal_problem.hpp"

namespace ssmkit::testing {

/// Threads, the order of tasks, and workspaces and what they held change no bit; with a workspace nothing is allocated; one that is
/// too small is refused. run(make(), how...) computes, workspace_size(p) is what that asks for, same(a, b) compares two results.
template <class Make, class Run, class Size, class Same>
void check_resources(Make&& make, Run&& run, Size&& workspace_size, Same&& same)
{
    threads pool(3);
    const auto one = make(), several = make(), reversed = make();
    run(one);
    run(several, pool);
    CHECK(same(one, several));
    run(reversed, last_task_first{});
    CHECK(same(one, reversed));
    for (const int pattern : {0xff, 0x7f, 0}) {
        const auto p = make();
        const poisoned_workspace memory(workspace_size(p), pattern);
        CHECK(allocations_during([&] { run(p, workspace(memory)); }) == 0);
        CHECK(same(one, p));
    }
    std::byte few[8];
    CHECK(complaint_of([&] { run(one, workspace(few)); }).find(": workspace has 8 bytes") != std::string::npos);
}

}  // namespace ssmkit::testing
