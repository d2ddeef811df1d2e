#pragma once

// Builds safetensors files in memory, sound ones and others.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace ssmkit::testing {

/// A file of any header and any data: 8 bytes of length, the header, the data.
inline std::vector<std::byte> safetensors_bytes(const std::string& header, std::size_t data_bytes, std::uint64_t length)
{
    std::vector<std::byte> bytes(8 + header.size() + data_bytes);
    std::memcpy(bytes.data(), &length, 8);
    std::memcpy(bytes.data() + 8, header.data(), header.size());
    return bytes;
}

inline std::vector<std::byte> safetensors_bytes(const std::string& header, std::size_t data_bytes = 0)
{
    return safetensors_bytes(header, data_bytes, header.size());
}

/// A sound file, tensor by tensor.
class safetensors_writer {
public:
    template <class T>
    void add(const std::string& name, const char* dtype, const std::vector<std::int64_t>& shape, const std::vector<T>& values)
    {
        const auto* const begin = reinterpret_cast<const std::byte*>(values.data());
        const std::size_t first = data_.size();
        data_.insert(data_.end(), begin, begin + values.size() * sizeof(T));
        header_[name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {first, data_.size()}}};
    }

    /// For what add cannot say: the description of a tensor, as it will stand in the file.
    nlohmann::json& operator[](const std::string& name) { return header_[name]; }

    std::vector<std::byte> bytes() const
    {
        std::vector<std::byte> file = safetensors_bytes(header_.dump());
        file.insert(file.end(), data_.begin(), data_.end());
        return file;
    }

private:
    nlohmann::json header_ = nlohmann::json::object();
    std::vector<std::byte> data_;
};

}  // namespace ssmkit::testing
