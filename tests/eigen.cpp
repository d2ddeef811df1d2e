#include <ssmkit/eigen.hpp>

#include <complex>

#include "catch.hpp"

namespace ssmkit::testing {
namespace {

using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using column_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;

/// True if the view's elements are the matrix's, in place.
template <class T, class M>
bool is_view_of(const view<T, 2>& v, const M& m)
{
    bool same = v.extent(0) == m.rows() && v.extent(1) == m.cols();
    for (index i = 0; same && i < v.extent(0); ++i) {
        for (index k = 0; k < v.extent(1); ++k) same = same && &v(i, k) == &m.coeffRef(i, k);
    }
    return same;
}

TEMPLATE_TEST_CASE("eigen: a matrix, its blocks and its transpose as views", "", row_major, column_major)
{
    TestType m = TestType::Random(7, 5);
    CHECK(is_view_of(as_view(m), m));
    CHECK(is_view_of(as_view(m.block(2, 1, 4, 3)), m.block(2, 1, 4, 3)));
    CHECK(is_view_of(as_view(m.middleCols(1, 2)), m.middleCols(1, 2)));
    CHECK(is_view_of(as_view(m.transpose()), m.transpose()));
    const view<float, 2> transposed = as_view(m.transpose());
    CHECK(&transposed(4, 6) == &m(6, 4));
    CHECK(as_view(m).transposed(0, 1).pointer(3, 2) == &m(2, 3));
    as_view(m)(6, 4) = 42;
    CHECK(m(6, 4) == 42);
}

TEST_CASE("eigen: maps with strides, and fixed sizes")
{
    std::vector<double> memory(200);
    using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic>;
    Eigen::Map<matrix, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>> map(
        memory.data(), 6, 4, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>(30, 3));
    CHECK(is_view_of(as_view(map), map));
    CHECK(as_view(map).pointer(2, 3) == memory.data() + 2 * 3 + 3 * 30);
    Eigen::Matrix<std::complex<float>, 3, 4> fixed;
    CHECK(is_view_of(as_view(fixed), fixed));
    Eigen::Array<float, 2, 3, Eigen::RowMajor> array;
    CHECK(is_view_of(as_view(array), array));
}

TEST_CASE("eigen: vectors, rows and columns have one axis")
{
    Eigen::VectorXf v = Eigen::VectorXf::LinSpaced(5, 0, 4);
    const view<float, 1> whole = as_view(v);
    CHECK(whole.extent(0) == 5);
    CHECK(whole[3] == 3);
    column_major m = column_major::Random(3, 4);
    const view<float, 1> row = as_view(m.row(1)), column = as_view(m.col(2));
    CHECK(row.extent(0) == 4);
    CHECK(&row[3] == &m(1, 3));
    CHECK(column.extent(0) == 3);
    CHECK(&column[2] == &m(2, 2));
}

TEST_CASE("eigen: const matrices give views of const elements, temporaries that own memory none at all")
{
    const row_major m = row_major::Random(2, 3);
    static_assert(std::is_same_v<decltype(as_view(m)), view<const float, 2>>);
    static_assert(std::is_same_v<decltype(as_view(m.row(0))), view<const float, 1>>);
    static_assert(!eigen_memory<row_major>);
    static_assert(eigen_memory<row_major&>);
    static_assert(eigen_memory<const row_major&>);
    static_assert(eigen_memory<Eigen::Map<row_major>>);
    const Eigen::Ref<const row_major> ref(m);
    static_assert(std::is_same_v<decltype(as_view(ref)), view<const float, 2>>);
    CHECK(is_view_of(as_view(m), m));
    CHECK(as_view(ref).data() == m.data());
}

TEMPLATE_TEST_CASE("eigen: rows as the tokens of several sequences", "", row_major, column_major)
{
    TestType m = TestType::Random(12, 7);
    const view<float, 3> v = as_view(m.rightCols(5), 3);
    CHECK(v.extents() == std::array<index, 3>{3, 4, 5});
    for (index b = 0; b < 3; ++b) {
        for (index t = 0; t < 4; ++t) {
            for (index c = 0; c < 5; ++c) CHECK(&v(b, t, c) == &m(b * 4 + t, c + 2));
        }
    }
    CHECK_THROWS_AS(as_view(m, 5), shape_error);
    CHECK_THROWS_AS(as_view(m, 0), shape_error);
    TestType none(0, 7);
    CHECK(as_view(none, 3).extents() == std::array<index, 3>{3, 0, 7});
    CHECK(as_view(none, 0).extents() == std::array<index, 3>{0, 0, 7});
}

TEST_CASE("eigen: a view as a matrix computes in place")
{
    std::vector<float> memory(24);
    for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<float>(i);
    const view<float, 2> v(memory, 4, 6);
    const view<const float, 2> part = v.slice(1, 1, 2).transposed(0, 1);  // (2, 4)
    const Eigen::MatrixXf product = as_eigen(part) * as_eigen(v);
    for (index i = 0; i < 2; ++i) {
        for (index k = 0; k < 6; ++k) {
            float sum = 0;
            for (index j = 0; j < 4; ++j) sum += part(i, j) * v(j, k);
            CHECK(product(i, k) == sum);
        }
    }
    as_eigen(v.slice(1, 2, 3)) *= 2;
    CHECK(v(3, 2) == 40);
    CHECK(v(3, 5) == 23);
    as_eigen(v[0]).setZero();
    CHECK(as_eigen(v.transposed(0, 1)[3])(0) == 0);
    CHECK(as_eigen(v.transposed(0, 1)[1])(1) == 7);
}

}  // namespace
}  // namespace ssmkit::testing
