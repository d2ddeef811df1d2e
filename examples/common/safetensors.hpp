#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <ssmkit/element.hpp>

/// Reads safetensors, the file format of Hugging Face's checkpoints and of the golden data:
///
///     8 bytes       length n of the header, little-endian
///     n bytes       JSON: {"<tensor>": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...,
///                   "__metadata__": {"<key>": "<text>", ...}}
///     the rest      the tensors, row-major and little-endian, without gaps; offsets count from here
///
/// A file is untrusted: nothing in it is believed before it was checked against the bytes that are really there.
namespace safetensors {

/// A file that cannot be read; the message begins with the file's name and names the tensor where there is one.
struct error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

enum class dtype { boolean, u8, i8, u16, i16, u32, i32, u64, i64, f16, bf16, f32, f64 };

namespace detail {

static_assert(std::endian::native == std::endian::little, "tensors are copied as they lie in the file");

struct dtype_info {
    dtype type;
    const char* name;
    std::size_t bytes;
};

inline constexpr dtype_info dtypes[] = {
    {dtype::boolean, "BOOL", 1}, {dtype::u8, "U8", 1},   {dtype::i8, "I8", 1},     {dtype::u16, "U16", 2},
    {dtype::i16, "I16", 2},      {dtype::u32, "U32", 4}, {dtype::i32, "I32", 4},   {dtype::u64, "U64", 8},
    {dtype::i64, "I64", 8},      {dtype::f16, "F16", 2}, {dtype::bf16, "BF16", 2}, {dtype::f32, "F32", 4},
    {dtype::f64, "F64", 8},
};

constexpr const dtype_info& info(dtype type) { return dtypes[static_cast<std::size_t>(type)]; }

/// A name from a file as one printable line of bounded length.
inline std::string quoted(std::string_view name)
{
    constexpr std::size_t longest = 200;
    const std::string text = nlohmann::json(name.substr(0, longest))
                                 .dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
    return name.size() > longest ? text + "..." : text;
}

}  // namespace detail

/// The name a dtype has in the files: "F32".
constexpr const char* name_of(dtype type) { return detail::info(type).name; }

/// (2, 3)
inline std::string text_of(const std::vector<std::int64_t>& shape)
{
    std::string text = "(";
    for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + ")";
}

/// A tensor of an open file. The bytes belong to the file and need not be aligned.
struct tensor {
    std::string name;
    dtype type{};
    std::vector<std::int64_t> shape;
    std::span<const std::byte> data;

    std::size_t size() const { return data.size() / detail::info(type).bytes; }

    /// The elements, converted. Throws error if a floating-point tensor is asked for as integers.
    template <class T>
    std::vector<T> to() const;
};

/// A file in memory, checked from end to end. Copies share the bytes.
class file {
public:
    /// Throws error if the file is absent, unreadable or not sound.
    static file open(const std::filesystem::path& path);

    /// The same for bytes from elsewhere; `name` stands for the path in messages.
    static file from_bytes(std::vector<std::byte> bytes, std::string name);

    const std::string& name() const { return name_; }
    const std::map<std::string, tensor>& tensors() const { return tensors_; }
    const std::map<std::string, std::string>& metadata() const { return metadata_; }

    /// Throws error if there is no such tensor.
    const tensor& at(const std::string& tensor_name) const
    {
        if (const tensor* const found = find(tensor_name)) return *found;
        fail(tensor_name, "is missing");
    }

    /// Null if there is no such tensor.
    const tensor* find(const std::string& tensor_name) const
    {
        const auto found = tensors_.find(tensor_name);
        return found == tensors_.end() ? nullptr : &found->second;
    }

    /// For complaints about the file that only its reader can have.
    [[noreturn]] void fail(const std::string& complaint) const { throw error(name_ + ": " + complaint); }
    [[noreturn]] void fail(std::string_view tensor_name, const std::string& complaint) const
    {
        fail("tensor " + detail::quoted(tensor_name) + " " + complaint);
    }

private:
    file(std::vector<std::byte> bytes, std::string name);

    void read_header();
    nlohmann::json parse(std::string_view text) const;
    void read_metadata(const nlohmann::json& entries);
    void read_tensor(const std::string& tensor_name, const nlohmann::json& entry, std::span<const std::byte> data);
    void check_layout(std::span<const std::byte> data) const;

    std::string name_;
    std::shared_ptr<const std::vector<std::byte>> bytes_;
    std::map<std::string, tensor> tensors_;
    std::map<std::string, std::string> metadata_;
};

template <class T>
std::vector<T> tensor::to() const
{
    std::vector<T> values(size());
    const auto convert = [&]<class Stored>(Stored) {
        constexpr bool half = std::is_same_v<Stored, ssmkit::bfloat16> || std::is_same_v<Stored, ssmkit::float16>;
        if constexpr (std::is_integral_v<T> && (half || std::is_floating_point_v<Stored>)) {
            throw error("tensor " + detail::quoted(name) + " holds " + name_of(type) + ", integers are expected");
        } else {
            for (std::size_t i = 0; i < values.size(); ++i) {
                Stored stored;
                std::memcpy(&stored, data.data() + i * sizeof(Stored), sizeof(Stored));
                if constexpr (std::is_same_v<Stored, T>) {
                    values[i] = stored;
                } else if constexpr (half) {
                    values[i] = static_cast<T>(static_cast<float>(stored));
                } else {
                    values[i] = static_cast<T>(stored);
                }
            }
        }
    };
    switch (type) {
        case dtype::boolean:
        case dtype::u8: convert(std::uint8_t{}); break;
        case dtype::i8: convert(std::int8_t{}); break;
        case dtype::u16: convert(std::uint16_t{}); break;
        case dtype::i16: convert(std::int16_t{}); break;
        case dtype::u32: convert(std::uint32_t{}); break;
        case dtype::i32: convert(std::int32_t{}); break;
        case dtype::u64: convert(std::uint64_t{}); break;
        case dtype::i64: convert(std::int64_t{}); break;
        case dtype::f16: convert(ssmkit::float16{}); break;
        case dtype::bf16: convert(ssmkit::bfloat16{}); break;
        case dtype::f32: convert(float{}); break;
        case dtype::f64: convert(double{}); break;
    }
    return values;
}

inline file file::open(const std::filesystem::path& path)
{
    std::error_code code;
    const std::filesystem::file_status status = std::filesystem::status(path, code);
    if (!std::filesystem::exists(status)) throw error(path.string() + ": no such file");
    if (!std::filesystem::is_regular_file(status)) throw error(path.string() + ": not a regular file");
    std::ifstream stream(path, std::ios::binary);
    const std::uintmax_t size = std::filesystem::file_size(path, code);
    if (!stream || code) throw error(path.string() + ": cannot be opened");
    std::vector<std::byte> bytes(size);
    stream.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
    if (static_cast<std::uintmax_t>(stream.gcount()) != size) throw error(path.string() + ": cannot be read to its end");
    return from_bytes(std::move(bytes), path.string());
}

inline file file::from_bytes(std::vector<std::byte> bytes, std::string name) { return {std::move(bytes), std::move(name)}; }

inline file::file(std::vector<std::byte> bytes, std::string name)
    : name_(std::move(name)), bytes_(std::make_shared<const std::vector<std::byte>>(std::move(bytes)))
{
    read_header();
}

inline void file::read_header()
{
    constexpr std::size_t prefix = 8;
    constexpr std::uint64_t longest = 100'000'000;  // the format's own limit: parsing takes memory before it can be checked
    const std::span<const std::byte> bytes(*bytes_);
    if (bytes.size() < prefix) fail("truncated: has " + std::to_string(bytes.size()) + " bytes, the header's length takes 8");
    std::uint64_t length;
    std::memcpy(&length, bytes.data(), prefix);
    if (length > bytes.size() - prefix) {
        fail("truncated: the header is to have " + std::to_string(length) + " bytes, the file has " +
             std::to_string(bytes.size() - prefix) + " after its length");
    }
    if (length > longest) {
        fail("oversized header of " + std::to_string(length) + " bytes, the limit is " + std::to_string(longest));
    }
    const auto header_length = static_cast<std::size_t>(length);
    const nlohmann::json header =
        parse({reinterpret_cast<const char*>(bytes.data()) + prefix, header_length});
    if (!header.is_object()) fail("the header is not a JSON object");
    const std::span<const std::byte> data = bytes.subspan(prefix + header_length);
    for (const auto& [key, entry] : header.items()) {
        if (key == "__metadata__") {
            read_metadata(entry);
        } else {
            read_tensor(key, entry, data);
        }
    }
    check_layout(data);
}

/// The library stops at a zero byte, keeps the last of two equal keys and nests without bounds: all refused here.
inline nlohmann::json file::parse(std::string_view text) const
{
    if (text.find('\0') != text.npos) fail("the header is not valid JSON: it holds a zero byte");
    using event = nlohmann::json::parse_event_t;
    constexpr std::size_t deepest = 4;
    std::vector<std::set<std::string>> keys;  // of the objects that are open, outermost first
    const auto watch = [&](int depth, event what, nlohmann::json& value) {
        if (depth > static_cast<int>(deepest)) fail("the header is nested too deeply");
        if (what == event::object_start) keys.emplace_back();
        if (what == event::object_end) keys.pop_back();
        if (what == event::key && !keys.back().insert(value.get<std::string>()).second) {
            fail("the header has the key " + detail::quoted(value.get_ref<const std::string&>()) + " twice");
        }
        return true;
    };
    try {
        return nlohmann::json::parse(text, watch);
    } catch (const nlohmann::json::exception& e) {
        std::string reason = detail::quoted(e.what());
        fail("the header is not valid JSON: " + reason.substr(1, reason.size() - 2));
    }
}

inline void file::read_metadata(const nlohmann::json& entries)
{
    if (!entries.is_object()) fail("__metadata__ is not a JSON object");
    for (const auto& [key, value] : entries.items()) {
        if (!value.is_string()) fail("__metadata__ entry " + detail::quoted(key) + " is not a string");
        metadata_.emplace(key, value.get<std::string>());
    }
}

inline void file::read_tensor(const std::string& tensor_name, const nlohmann::json& entry, std::span<const std::byte> data)
{
    const auto complain = [&](const std::string& complaint) { fail(tensor_name, complaint); };
    const auto field = [&](const char* key, bool fits(const nlohmann::json&), const char* kind) -> const nlohmann::json& {
        const auto found = entry.find(key);
        if (found == entry.end()) complain("has no " + std::string(key));
        if (!fits(*found)) complain("has a " + std::string(key) + " that is not " + kind);
        return *found;
    };
    const auto integers = [](const nlohmann::json& list) {
        const auto fits = [](const nlohmann::json& n) {
            return n.is_number_unsigned() &&
                   n.get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
        };
        return list.is_array() && std::all_of(list.begin(), list.end(), fits);
    };
    const auto string = [](const nlohmann::json& text) { return text.is_string(); };

    if (!entry.is_object()) complain("is not described by a JSON object");
    const auto& type_name = field("dtype", string, "a string").get_ref<const std::string&>();
    const auto type = std::find_if(std::begin(detail::dtypes), std::end(detail::dtypes),
                                   [&](const detail::dtype_info& d) { return d.name == type_name; });
    if (type == std::end(detail::dtypes)) complain("has the unknown dtype " + detail::quoted(type_name));

    auto shape = field("shape", integers, "a list of non-negative integers").get<std::vector<std::int64_t>>();
    auto bytes = static_cast<std::int64_t>(type->bytes);
    for (const std::int64_t extent : shape) {
        if (__builtin_mul_overflow(bytes, extent, &bytes)) complain("has a shape of more than 2^63 bytes");
    }

    const auto offsets =
        field("data_offsets", integers, "a list of non-negative integers").get<std::vector<std::int64_t>>();
    if (offsets.size() != 2) complain("has " + std::to_string(offsets.size()) + " data_offsets, expected 2");
    const std::int64_t begin = offsets[0], end = offsets[1];
    const std::string range = "[" + std::to_string(begin) + ", " + std::to_string(end) + ")";
    if (begin > end) complain("has data_offsets " + range + " that end before they begin");
    if (end > static_cast<std::int64_t>(data.size())) {
        complain("lies at bytes " + range + ", the file has " + std::to_string(data.size()) + ": truncated, or a wrong header");
    }
    if (end - begin != bytes) {
        complain("has " + std::to_string(end - begin) + " bytes, " + name_of(type->type) + " of shape " + text_of(shape) +
                 " takes " + std::to_string(bytes));
    }
    const auto part = data.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(bytes));
    tensors_.emplace(tensor_name, tensor{tensor_name, type->type, std::move(shape), part});
}

/// Every byte of the data belongs to one tensor.
inline void file::check_layout(std::span<const std::byte> data) const
{
    std::vector<const tensor*> order;
    for (const auto& [key, t] : tensors_) order.push_back(&t);
    std::sort(order.begin(), order.end(), [](const tensor* a, const tensor* b) {
        return std::pair(a->data.data(), a->data.size()) < std::pair(b->data.data(), b->data.size());
    });
    const std::byte* covered = data.data();
    const tensor* last = nullptr;
    for (const tensor* const t : order) {
        if (t->data.data() < covered) fail(t->name, "overlaps tensor " + detail::quoted(last->name));
        if (t->data.data() > covered) {
            fail(t->name, "leaves a hole of " + std::to_string(t->data.data() - covered) + " bytes before it");
        }
        covered = t->data.data() + t->data.size();
        last = t;
    }
    const std::ptrdiff_t rest = data.data() + data.size() - covered;
    if (rest != 0) fail("oversized: " + std::to_string(rest) + " bytes belong to no tensor");
}

}  // namespace safetensors
