#include "catch.hpp"

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <ssmkit/element.hpp>

#include "../examples/common/safetensors.hpp"
#include "safetensors_bytes.hpp"

using ssmkit::testing::safetensors_bytes;
using ssmkit::testing::safetensors_writer;

namespace {

safetensors::file read(std::vector<std::byte> bytes) { return safetensors::file::from_bytes(std::move(bytes), "crafted"); }

/// What the error says that f() throws; fails if it throws none.
template <class F>
std::string message_of(F&& f)
{
    try {
        f();
    } catch (const safetensors::error& e) {
        return e.what();
    }
    FAIL("nothing was refused");
    return {};
}

/// What the reader has to say about a file.
std::string complaint(const std::vector<std::byte>& bytes)
{
    return message_of([&] { read(bytes); });
}

/// About a file of one tensor "w" with that description and that many bytes of data.
std::string complaint_about(const std::string& description, std::size_t data_bytes)
{
    const std::string text = complaint(safetensors_bytes("{\"w\":" + description + "}", data_bytes));
    CHECK(text.find("crafted: tensor \"w\" ") == 0);
    return text;
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("safetensors: names, shapes, values and metadata come back as written")
{
    safetensors_writer w;
    w.add<float>("b", "F32", {2, 1}, {1.5f, -2});
    w.add<double>("a", "F64", {}, {0.1});
    w.add<std::int64_t>("none", "I64", {3, 0}, {});
    w["__metadata__"] = {{"format", "pt"}};
    const safetensors::file f = read(w.bytes());
    CHECK(f.tensors().size() == 3);
    CHECK(f.at("b").shape == std::vector<std::int64_t>{2, 1});
    CHECK(f.at("b").to<float>() == std::vector<float>{1.5f, -2});
    CHECK(f.at("b").to<double>() == std::vector<double>{1.5, -2});
    CHECK(f.at("a").shape.empty());
    CHECK(f.at("a").to<double>() == std::vector<double>{0.1});
    CHECK(f.at("none").size() == 0);
    CHECK(f.find("c") == nullptr);
    CHECK(f.metadata().at("format") == "pt");
    CHECK(message_of([&] { f.at("c"); }) == "crafted: tensor \"c\" is missing");
}

TEST_CASE("safetensors: every element type is converted exactly")
{
    safetensors_writer w;
    w.add<std::uint16_t>("bf16", "BF16", {3}, {0x3f80, 0xc049, 0x7f80});
    w.add<std::uint16_t>("f16", "F16", {4}, {0x3c00, 0xc248, 0x0001, 0x7c00});
    w.add<std::int32_t>("i32", "I32", {2}, {-7, 1 << 24});
    w.add<std::uint8_t>("u8", "U8", {1}, {255});
    w.add<std::int8_t>("i8", "I8", {1}, {-128});
    w.add<std::uint16_t>("u16", "U16", {1}, {65535});
    w.add<std::int16_t>("i16", "I16", {1}, {-32768});
    w.add<std::uint32_t>("u32", "U32", {1}, {4294967295u});
    w.add<std::uint64_t>("u64", "U64", {1}, {std::uint64_t(1) << 40});
    w.add<std::uint8_t>("bool", "BOOL", {2}, {0, 1});
    const safetensors::file f = read(w.bytes());
    const float infinity = std::numeric_limits<float>::infinity();
    CHECK(f.at("bf16").to<float>() == std::vector<float>{1, -3.140625f, infinity});
    CHECK(f.at("f16").to<float>() == std::vector<float>{1, -3.140625f, std::ldexp(1.0f, -24), infinity});
    CHECK(f.at("bf16").to<ssmkit::bfloat16>()[1].bits == 0xc049);
    CHECK(f.at("i32").to<std::int64_t>() == std::vector<std::int64_t>{-7, 1 << 24});
    CHECK(f.at("i32").to<float>() == std::vector<float>{-7, 16777216});
    CHECK(f.at("u8").to<int>() == std::vector<int>{255});
    CHECK(f.at("i8").to<int>() == std::vector<int>{-128});
    CHECK(f.at("u16").to<int>() == std::vector<int>{65535});
    CHECK(f.at("i16").to<int>() == std::vector<int>{-32768});
    CHECK(f.at("u32").to<std::int64_t>() == std::vector<std::int64_t>{4294967295});
    CHECK(f.at("u64").to<double>() == std::vector<double>{1099511627776.0});
    CHECK(f.at("bool").to<int>() == std::vector<int>{0, 1});
    CHECK(message_of([&] { f.at("f16").to<int>(); }) == "tensor \"f16\" holds F16, integers are expected");
}

TEST_CASE("safetensors: data at odd addresses are read")
{
    safetensors_writer w;
    w.add<std::uint8_t>("a", "U8", {1}, {1});
    w.add<float>("b", "F32", {2}, {3, 4});
    w.add<double>("c", "F64", {1}, {5});
    const safetensors::file f = read(w.bytes());
    CHECK(f.at("b").to<float>() == std::vector<float>{3, 4});
    CHECK(f.at("c").to<double>() == std::vector<double>{5});
}

TEST_CASE("safetensors: a copy outlives its original")
{
    safetensors_writer w;
    w.add<float>("a", "F32", {2}, {3, 4});
    const safetensors::file copy = [&] {
        const safetensors::file original = read(w.bytes());
        return safetensors::file(original);
    }();
    CHECK(copy.at("a").to<float>() == std::vector<float>{3, 4});
}

TEST_CASE("safetensors: no file that is cut short is accepted, wherever the cut")
{
    safetensors_writer w;
    w.add<float>("a", "F32", {2}, {3, 4});
    w.add<float>("b", "F32", {1}, {5});
    const std::vector<std::byte> whole = w.bytes();
    for (std::size_t length = 0; length < whole.size(); ++length) {
        const auto end = whole.begin() + static_cast<std::ptrdiff_t>(length);
        CAPTURE(length);
        CHECK(contains(complaint({whole.begin(), end}), "truncated"));
    }
}

TEST_CASE("safetensors: bytes after the last tensor are refused")
{
    safetensors_writer w;
    w.add<float>("a", "F32", {2}, {3, 4});
    std::vector<std::byte> bytes = w.bytes();
    bytes.resize(bytes.size() + 3);
    CHECK(contains(complaint(bytes), "oversized: 3 bytes belong to no tensor"));
}

TEST_CASE("safetensors: a header length that lies is refused")
{
    for (const std::uint64_t length : {std::uint64_t(3), std::uint64_t(1) << 31, ~std::uint64_t(0), ~std::uint64_t(0) - 7}) {
        CAPTURE(length);
        CHECK(contains(complaint(safetensors_bytes("{}", 0, length)), "truncated"));
    }
    CHECK(contains(complaint(safetensors_bytes("{}", 0, 1)), "not valid JSON"));
    CHECK(contains(complaint(safetensors_bytes("{}", 0, 0)), "not valid JSON"));
}

TEST_CASE("safetensors: a header beyond the format's limit is refused before it is parsed")
{
    CHECK(contains(complaint(safetensors_bytes(std::string(100'000'001, ' '))), "oversized header"));
}

TEST_CASE("safetensors: a header that is not an object of sound descriptions is refused")
{
    CHECK(contains(complaint(safetensors_bytes("[]")), "not a JSON object"));
    CHECK(contains(complaint(safetensors_bytes("7")), "not a JSON object"));
    CHECK(contains(complaint(safetensors_bytes("{\"w\":")), "not valid JSON"));
    CHECK(contains(complaint(safetensors_bytes("{} {}")), "not valid JSON"));
    CHECK(contains(complaint(safetensors_bytes("{\"\xff\":1}")), "not valid JSON"));
    CHECK(contains(complaint(safetensors_bytes(std::string("{}\0", 3))), "not valid JSON"));
    CHECK(contains(complaint(safetensors_bytes(std::string(100'000, '['))), "nested too deeply"));
    CHECK(contains(complaint(safetensors_bytes("{\"__metadata__\":3}")), "__metadata__ is not a JSON object"));
    CHECK(contains(complaint(safetensors_bytes("{\"__metadata__\":{\"a\":3}}")), "__metadata__ entry \"a\" is not a string"));
    CHECK(read(safetensors_bytes("{}   ")).tensors().empty());
    CHECK(read(safetensors_bytes("{\"__metadata__\":{}}")).tensors().empty());
}

TEST_CASE("safetensors: two equal keys are refused at every level")
{
    const std::string w = "{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}";
    CHECK(contains(complaint(safetensors_bytes("{\"w\":" + w + ",\"w\":" + w + "}", 4)), "has the key \"w\" twice"));
    const std::string twice = "{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[],\"data_offsets\":[0,4]}";
    CHECK(contains(complaint(safetensors_bytes("{\"w\":" + twice + "}", 4)), "has the key \"shape\" twice"));
    CHECK(contains(complaint(safetensors_bytes("{\"__metadata__\":{\"k\":\"\",\"k\":\"\"}}")), "has the key \"k\" twice"));
}

TEST_CASE("safetensors: a description that lies or lacks something is refused and the tensor named")
{
    CHECK(contains(complaint_about("7", 0), "not described by a JSON object"));
    CHECK(contains(complaint_about("{}", 0), "has no dtype"));
    CHECK(contains(complaint_about("{\"dtype\":7}", 0), "dtype that is not a string"));
    CHECK(contains(complaint_about("{\"dtype\":\"F31\",\"shape\":[],\"data_offsets\":[0,4]}", 4), "unknown dtype \"F31\""));
    CHECK(contains(complaint_about("{\"dtype\":\"F32\",\"data_offsets\":[0,4]}", 4), "has no shape"));
    CHECK(contains(complaint_about("{\"dtype\":\"F32\",\"shape\":[]}", 4), "has no data_offsets"));
    for (const char* shape : {"1", "null", "{}", "[-1]", "[1.0]", "[1e0]", "[\"1\"]", "[true]", "[18446744073709551616]",
                              "[18446744073709551615]", "[9223372036854775808]"}) {
        CAPTURE(shape);
        const std::string description = std::string("{\"dtype\":\"F32\",\"shape\":") + shape + ",\"data_offsets\":[0,4]}";
        CHECK(contains(complaint_about(description, 4), "shape that is not a list of non-negative integers"));
    }
    for (const char* offsets : {"[0]", "[0,4,4]", "[]"}) {
        CAPTURE(offsets);
        const std::string description = std::string("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":") + offsets + "}";
        CHECK(contains(complaint_about(description, 4), "data_offsets, expected 2"));
    }
    for (const char* offsets : {"[-4,0]", "[0,4.0]", "4", "[0,\"4\"]"}) {
        CAPTURE(offsets);
        const std::string description = std::string("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":") + offsets + "}";
        CHECK(contains(complaint_about(description, 4), "data_offsets that is not a list"));
    }
    CHECK(contains(complaint_about("{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[4,0]}", 4), "end before they begin"));
    CHECK(contains(complaint_about("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}", 4), "takes 8"));
    CHECK(contains(complaint_about("{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,4]}", 4), "takes 8"));
    CHECK(contains(complaint_about("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,9223372036854775807]}", 4), "truncated"));
}

TEST_CASE("safetensors: a shape whose product wraps around is refused")
{
    for (const char* shape : {"[4294967296,4294967296]", "[4611686018427387905]", "[9223372036854775807,2]",
                              "[3,3074457345618258603,2]", "[2305843009213693952,8]"}) {
        CAPTURE(shape);
        const std::string description = std::string("{\"dtype\":\"F32\",\"shape\":") + shape + ",\"data_offsets\":[0,4]}";
        CHECK(contains(complaint_about(description, 4), "shape of more than 2^63 bytes"));
    }
}

TEST_CASE("safetensors: overlaps and holes are refused")
{
    const auto two = [](const std::string& a, const std::string& b) {
        const std::string begin = "{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":";
        return "{\"a\":" + begin + a + "},\"b\":" + begin + b + "}}";
    };
    CHECK(read(safetensors_bytes(two("[4,8]", "[0,4]"), 8)).tensors().size() == 2);
    CHECK(contains(complaint(safetensors_bytes(two("[0,4]", "[3,7]"), 7)), "tensor \"b\" overlaps tensor \"a\""));
    CHECK(contains(complaint(safetensors_bytes(two("[0,4]", "[0,4]"), 4)), "overlaps tensor"));
    CHECK(contains(complaint(safetensors_bytes(two("[0,4]", "[5,9]"), 9)), "tensor \"b\" leaves a hole of 1 bytes before it"));
    CHECK(contains(complaint(safetensors_bytes(two("[1,5]", "[5,9]"), 9)), "tensor \"a\" leaves a hole of 1 bytes before it"));
}

TEST_CASE("safetensors: names from a file are shown on one line of bounded length")
{
    const std::string name(1000, 'n');
    const std::string text = complaint(safetensors_bytes("{\"" + name + "\\n\\u0007\":7}"));
    CHECK(text.size() < 400);
    const std::string control = complaint(safetensors_bytes("{\"a\\nb\\u001b[31m\":7}"));
    CHECK(control.find('\n') == std::string::npos);
    CHECK(control.find('\x1b') == std::string::npos);
    CHECK(contains(control, "\"a\\nb\\u001b[31m\""));
}

TEST_CASE("safetensors: absent files and folders are refused by name")
{
    CHECK(message_of([&] { safetensors::file::open("no/such/file"); }) == "no/such/file: no such file");
    CHECK(message_of([&] { safetensors::file::open("."); }) == ".: not a regular file");
}
