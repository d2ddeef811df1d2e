#pragma once

// What a handler of golden_check sees. One file per operation registers it:
//
//     const golden::handler scale("scale", []<class T>(golden::element<T>, golden::problem& p) {
//         const ssmkit::scale_args<T> a{.x = p.input<T>("x", 0, 2, 1), .y = p.output<T>("out", 0, 2, 1)};
//         p.run(a);
//     });
//
// It is called for T = double, float and bfloat16. Nothing of a file may be left over: a tensor that is neither read
// nor compared and a flag that is neither asked for nor declared descriptive fail the case.

#include <algorithm>
#include <array>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <ssmkit/element.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/view.hpp>

#include "../../examples/common/safetensors.hpp"
#include "../operations/operations.hpp"

namespace golden {

using ssmkit::index;
using ssmkit::view;

/// An axis that the file's tensor does not have, of extent 1.
inline constexpr int new_axis = -1;

/// In which order the elements of a case lie in memory: as in the file, or so that the handler's last axis is
/// contiguous. Every case is run with both.
enum class layout { of_file, of_view };

/// A computed output beside the tensor of the file that it has to equal, values in the file's order.
struct result {
    std::string name;
    std::function<std::vector<double>()> values;
};

/// One case while its handler runs: hands out the file's inputs and the memory for its outputs as views, and owns both.
class problem {
public:
    /// Memory of an input, which no operation may write to.
    struct kept_input {
        std::string name;
        std::function<bool()> changed;
    };

    problem(const safetensors::file& file, const nlohmann::json& flags, layout order, const ssmkit::testing::operations& run)
        : file_(file), flags_(flags), order_(order), run_(run)
    {
    }

    /// Runs the operation that these arguments are of (tests/operations): its kernel, or its reference if that is asked for.
    template <class Args>
    void run(const Args& a)
    {
        run_(a);
    }

    const ssmkit::testing::operations& operations() const { return run_; }

    /// What a kernel runs on that has no entry in tests/operations.
    ssmkit::threads& execution()
    {
        if (run_.device_calls) throw ssmkit::testing::no_device_operation("the operation does not run on a device");
        return run_.pool;
    }

    bool has(const std::string& name) const { return file_.find(name) != nullptr; }

    std::vector<index> shape(const std::string& name) const
    {
        const std::vector<std::int64_t>& extents = file_.at(name).shape;
        return {extents.begin(), extents.end()};
    }

    /// The value of a flag that the case must have.
    template <class V>
    V flag(const std::string& name)
    {
        flags_used_.insert(name);
        if (!flags_.contains(name)) throw std::runtime_error("the flag " + name + " is missing");
        return flags_.at(name).get<V>();
    }

    /// The value of a flag, or what it means to be absent.
    template <class V>
    V flag(const std::string& name, V otherwise)
    {
        return flags_.contains(name) ? flag<V>(name) : otherwise;
    }

    /// Flags that only restate what the tensors tell.
    template <class... Names>
    void descriptive(const Names&... names)
    {
        (flags_used_.insert(names), ...);
    }

    /// A tensor that is stored for information only.
    void ignored(const std::string& name) { tensors_used_.insert(name); }

    /// The tensor as a view whose axis i is axis axes[i] of the file; empty if the file has none of this name. Where E
    /// is complex, the pairs (re, im) are the last axis of the file, not named among the axes, or lie interleaved along
    /// it.
    template <class E, class... Axes>
    view<const E, sizeof...(Axes)> input(const std::string& name, Axes... axes)
    {
        return filled<E>(name, std::array{static_cast<int>(axes)...});
    }

    /// Memory for what has to equal the tensor, filled with NaN; empty if the file has none of this name. May be asked
    /// for more than once where one result is computed in several ways.
    template <class E, class... Axes>
    view<E, sizeof...(Axes)> output(const std::string& name, Axes... axes)
    {
        return compared<E>(name, std::array{static_cast<int>(axes)...});
    }

    /// A copy of `before` that the operation overwrites and that has to equal `after` then.
    template <class E, class... Axes>
    view<E, sizeof...(Axes)> updated(const std::string& before, const std::string& after, Axes... axes)
    {
        const auto from = filled<E>(before, std::array{static_cast<int>(axes)...});
        const auto to = compared<E>(after, std::array{static_cast<int>(axes)...});
        if (from.extents() != to.extents()) throw std::runtime_error(before + " and " + after + " differ in shape");
        std::copy_n(from.data(), from.size(), to.data());
        return to;
    }

    const std::vector<result>& results() const { return results_; }
    const std::vector<kept_input>& inputs() const { return inputs_; }
    const std::set<std::string>& tensors_used() const { return tensors_used_; }
    const std::set<std::string>& flags_used() const { return flags_used_; }

private:
    /// Dense memory for a tensor of the file and where its elements lie in it.
    template <class E>
    struct array {
        std::unique_ptr<E[]> data;
        std::vector<index> extents, strides;  // of the file's axes

        index size() const
        {
            index n = 1;
            for (const index e : extents) n *= e;
            return n;
        }

        /// Where element number `i`, counted in the file's order, lies.
        index offset(index i) const
        {
            index at = 0;
            for (std::size_t axis = extents.size(); axis-- > 0; i /= extents[axis]) at += i % extents[axis] * strides[axis];
            return at;
        }
    };

    template <class E, std::size_t Rank>
    array<E> allocate(const std::string& name, const std::array<int, Rank>& axes) const
    {
        const auto named = static_cast<std::size_t>(std::count_if(axes.begin(), axes.end(), [](int a) { return a >= 0; }));
        array<E> memory;
        memory.extents = shape(name);
        if constexpr (ssmkit::detail::is_complex<E>) {
            if (memory.extents.empty() || memory.extents.back() % 2 != 0) throw std::runtime_error(name + " is not complex");
            memory.extents.back() /= 2;
            if (memory.extents.size() == named + 1 && memory.extents.back() == 1) memory.extents.pop_back();
        }
        if (memory.extents.size() != named) {
            throw std::runtime_error(name + " has " + std::to_string(memory.extents.size()) + " axes, the handler names " +
                                     std::to_string(named));
        }
        memory.strides.resize(named);
        index stride = 1;
        for (std::size_t i = axes.size(), k = named; i-- > 0;) {
            if (axes[i] == new_axis) continue;
            const std::size_t axis = order_ == layout::of_file ? --k : static_cast<std::size_t>(axes[i]);
            memory.strides.at(axis) = stride;
            stride *= memory.extents.at(axis);
        }
        memory.data = std::make_unique<E[]>(static_cast<std::size_t>(std::max<index>(memory.size(), 1)));
        return memory;
    }

    template <class E, std::size_t Rank>
    static view<E, Rank> as_view(const array<E>& memory, const std::array<int, Rank>& axes)
    {
        std::array<index, Rank> extents{}, strides{};
        for (std::size_t i = 0; i < Rank; ++i) {
            extents[i] = axes[i] == new_axis ? 1 : memory.extents.at(static_cast<std::size_t>(axes[i]));
            strides[i] = axes[i] == new_axis ? 1 : memory.strides.at(static_cast<std::size_t>(axes[i]));
        }
        return {memory.data.get(), extents, strides};
    }

    template <class E>
    static E element_of(const std::vector<double>& values, index i)
    {
        if constexpr (ssmkit::detail::is_complex<E>) {
            using part = typename E::value_type;
            return {static_cast<part>(values[2 * static_cast<std::size_t>(i)]),
                    static_cast<part>(values[2 * static_cast<std::size_t>(i) + 1])};
        } else if constexpr (std::is_integral_v<E>) {
            return static_cast<E>(values[static_cast<std::size_t>(i)]);
        } else {
            return static_cast<E>(static_cast<ssmkit::compute_t<E>>(values[static_cast<std::size_t>(i)]));
        }
    }

    template <class E>
    static E nothing()
    {
        constexpr double nan = std::numeric_limits<double>::quiet_NaN();
        if constexpr (std::is_integral_v<E>) {
            return std::numeric_limits<E>::min();
        } else {
            return element_of<E>({nan, nan}, 0);
        }
    }

    template <class E, std::size_t Rank>
    view<E, Rank> filled(const std::string& name, const std::array<int, Rank>& axes)
    {
        const safetensors::tensor* const stored = file_.find(name);
        if (!stored) return {};
        tensors_used_.insert(name);
        const std::vector<double> values = stored->to<double>();
        auto memory = std::make_shared<array<E>>(allocate<E>(name, axes));
        for (index i = 0; i < memory->size(); ++i) memory->data[memory->offset(i)] = element_of<E>(values, i);
        const auto before = std::make_shared<std::vector<E>>(memory->data.get(), memory->data.get() + memory->size());
        inputs_.push_back({name, [memory, before] {
            return std::memcmp(before->data(), memory->data.get(), before->size() * sizeof(E)) != 0;
        }});
        return as_view(*memory, axes);
    }

    template <class E, std::size_t Rank>
    view<E, Rank> compared(const std::string& name, const std::array<int, Rank>& axes)
    {
        if (!has(name)) return {};
        tensors_used_.insert(name);
        auto memory = std::make_shared<array<E>>(allocate<E>(name, axes));
        std::fill_n(memory->data.get(), memory->size(), nothing<E>());
        results_.push_back({name, [memory] {
            std::vector<double> values;
            for (index i = 0; i < memory->size(); ++i) {
                const E& e = memory->data[memory->offset(i)];
                if constexpr (ssmkit::detail::is_complex<E>) {
                    values.insert(values.end(), {static_cast<double>(e.real()), static_cast<double>(e.imag())});
                } else if constexpr (std::is_integral_v<E>) {
                    values.push_back(static_cast<double>(e));
                } else {
                    values.push_back(static_cast<double>(static_cast<ssmkit::compute_t<E>>(e)));
                }
            }
            return values;
        }});
        return as_view(*memory, axes);
    }

    const safetensors::file& file_;
    const nlohmann::json& flags_;
    layout order_;
    ssmkit::testing::operations run_;
    std::vector<kept_input> inputs_;
    std::vector<result> results_;
    std::set<std::string> tensors_used_, flags_used_;
};

/// How a case is stored in memory: T = double, float or bfloat16 for inputs and outputs.
template <class T>
using element = std::type_identity<T>;

/// Relative error that the specification's tolerance section grants an operation: in f64 where it grants more than
/// 1e-10, in f32 for tensors of which the file does not say what float can reach.
struct tolerance {
    double f64 = 1e-10;
    double f32 = 2e-6;
};

/// Thrown by a handler for a variant of its operation that it does not know: the case fails, or with --known-only is
/// skipped, like one of an unknown operation.
struct unknown : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Runs the cases of an operation. Constructing one at namespace scope registers it.
class handler {
public:
    template <class F>
    handler(const std::string& op, F run, tolerance granted = {})
        : run_f64([run](problem& p) { run(element<double>{}, p); }),
          run_f32([run](problem& p) { run(element<float>{}, p); }),
          run_bf16([run](problem& p) { run(element<ssmkit::bfloat16>{}, p); }),
          granted(granted)
    {
        registered().emplace(op, *this);
    }

    /// All handlers of the program by the name of their operation.
    static std::map<std::string, handler>& registered()
    {
        static std::map<std::string, handler> handlers;
        return handlers;
    }

    std::function<void(problem&)> run_f64, run_f32, run_bf16;
    tolerance granted;
};

}  // namespace golden
