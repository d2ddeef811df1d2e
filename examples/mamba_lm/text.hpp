#pragma once

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <ios>
#include <istream>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "../common/safetensors.hpp"
#include "config.hpp"

namespace mamba_lm {

/// With a vocabulary of 256 a token is a byte. With any other, text is token numbers between white space or commas.
class text_format {
public:
    explicit text_format(index vocab) : vocab_(vocab) {}

    bool bytes() const { return vocab_ == 256; }
    const char* unit() const { return bytes() ? "byte" : "token"; }

    /// `name` is what messages call the text.
    std::vector<index> parse(std::string_view text, const std::string& name) const
    {
        std::vector<index> tokens;
        if (bytes()) {
            for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
            return tokens;
        }
        constexpr std::string_view separators = " \t\r\n,";
        for (std::size_t at = text.find_first_not_of(separators); at < text.size();) {
            const std::string_view word = text.substr(at, text.find_first_of(separators, at) - at);
            index token = -1;
            const auto [end, code] = std::from_chars(word.data(), word.data() + word.size(), token);
            if (code != std::errc{} || end != word.data() + word.size() || token < 0 || token >= vocab_) {
                throw error(name + ": " + safetensors::detail::quoted(word.substr(0, 40)) +
                            " is not a token, a number from 0 to " + std::to_string(vocab_ - 1));
            }
            tokens.push_back(token);
            at = text.find_first_not_of(separators, at + word.size());
        }
        return tokens;
    }

    /// Writes one token at once, so that text appears as it is made. Throws error if nobody can take it.
    void write(index token, std::FILE* to) const
    {
        const bool written = bytes() ? std::fputc(static_cast<int>(token), to) != EOF
                                     : std::fprintf(to, "%lld ", static_cast<long long>(token)) >= 0;
        if (!written || std::fflush(to) != 0) throw error("standard output: cannot be written");
    }

private:
    index vocab_;
};

inline std::string read_all(std::istream& from, const std::string& name)
try {
    return {std::istreambuf_iterator<char>(from), {}};
} catch (const std::ios_base::failure&) {  // a directory, for one
    throw error(name + ": cannot be read");
}

inline std::string read_file(const std::string& path)
{
    std::ifstream stream(path, std::ios::binary);
    if (!stream) throw error(path + ": " + std::generic_category().message(errno));
    return read_all(stream, path);
}

}  // namespace mamba_lm
