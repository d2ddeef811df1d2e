#include "catch.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <ssmkit/workspace.hpp>

namespace {

using ssmkit::detail::arena, ssmkit::detail::scratch;

/// What some operation needs.
struct blocks {
    float* floats;
    std::byte* bytes;
    double* doubles;

    explicit blocks(arena& a) : floats(a.take<float>(7)), bytes(a.take<std::byte>(65)), doubles(a.take<double>(3)) {}
};

}  // namespace

TEST_CASE("workspace: an arena without memory adds up what one with memory hands out")
{
    arena counting;
    const blocks none(counting);
    CHECK(none.floats == nullptr);
    CHECK(none.doubles == nullptr);
    CHECK(arena().size() == 0);

    std::vector<std::byte> memory(counting.size() + 64, std::byte{0xcd});
    for (std::size_t shift = 0; shift < 64; shift += 7) {  // wherever the memory starts
        arena a(ssmkit::workspace(memory).subspan(shift, counting.size()));
        const blocks b(a);
        const auto address = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p); };
        for (const void* const p : {static_cast<void*>(b.floats), static_cast<void*>(b.bytes), static_cast<void*>(b.doubles)}) {
            CHECK(address(p) % arena::alignment == 0);
        }
        CHECK(address(b.floats) >= address(memory.data() + shift));
        CHECK(address(b.bytes) >= address(b.floats + 7));
        CHECK(address(b.doubles) >= address(b.bytes + 65));
        CHECK(address(b.doubles + 3) <= address(memory.data() + shift + counting.size()));
        CHECK(a.size() == counting.size());
    }
}

TEST_CASE("workspace: an operation that is lent none brings its own")
{
    const scratch own("op", {}, 100);
    REQUIRE(own.memory().size() == 100);
    own.memory()[99] = std::byte{1};
    CHECK(scratch("op", {}, 0).memory().empty());
}

TEST_CASE("workspace: memory that is lent is used")
{
    std::vector<std::byte> memory(100);
    CHECK(scratch("op", memory, 100).memory().data() == memory.data());
    CHECK(scratch("op", memory, 60).memory().data() == memory.data());
}

TEST_CASE("workspace: too little of it is told in bytes")
{
    std::vector<std::byte> memory(99);
    try {
        const scratch short_of_one("op", memory, 100);
        FAIL("no shape_error");
    } catch (const ssmkit::shape_error& e) {
        CHECK(e.what() == std::string("op: workspace has 99 bytes, expected 100"));
    }
}
