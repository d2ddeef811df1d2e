#pragma once

#include <charconv>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace s5_forecast {

/// One value a month without gaps.
struct series {
    int first_year = 0, first_month = 0;  // month 0 is January
    std::vector<double> values;

    double year(std::size_t i) const { return first_year + (first_month + static_cast<double>(i) + 0.5) / 12; }
};

/// Reads lines of YYYYMMDD,value below a line of names; values that are missing are empty. Months are means of their values;
/// months without any lie on the line between their neighbours. Throws std::runtime_error with the line that it does not like.
inline series read_monthly(const std::string& path)
{
    std::ifstream file(path);
    if (!file) throw std::runtime_error(path + ": cannot be opened");
    struct mean {
        double sum = 0;
        int count = 0;
    };
    std::map<int, mean> months;
    std::string line;
    std::getline(file, line);
    for (int number = 2; std::getline(file, line); ++number) {
        const auto fail = [&] { throw std::runtime_error(path + ":" + std::to_string(number) + ": not a date and a value"); };
        int date = 0;
        const char* const end = line.data() + line.size();
        const auto [comma, error] = std::from_chars(line.data(), end, date);
        if (error != std::errc() || comma == end || *comma != ',') fail();
        if (comma + 1 == end || *(comma + 1) == '\r') continue;
        double value = 0;
        if (std::from_chars(comma + 1, end, value).ec != std::errc()) fail();
        const int year = date / 10000, month = date / 100 % 100 - 1;
        if (month < 0 || month > 11 || year < 1 || year > 9999) fail();
        mean& m = months[12 * year + month];
        m.sum += value;
        ++m.count;
    }
    if (months.empty()) throw std::runtime_error(path + ": no values");
    series s{months.begin()->first / 12, months.begin()->first % 12, {}};
    int before = 0;
    double last = 0;
    for (const auto& [month, m] : months) {
        const double value = m.sum / m.count;
        for (int gap = before + 1; !s.values.empty() && gap < month; ++gap) {
            s.values.push_back(last + (value - last) * (gap - before) / (month - before));
        }
        s.values.push_back(value);
        before = month;
        last = value;
    }
    return s;
}

}  // namespace s5_forecast
