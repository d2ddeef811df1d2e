#include "define.hpp"

#include <ssmkit/linear_attention.hpp>
#include <ssmkit/linear_attention_backward.hpp>
#include <ssmkit/reference/linear_attention.hpp>
#include <ssmkit/reference/linear_attention_backward.hpp>

OPERATION_OF_ELEMENTS(linear_attention)
OPERATION_OF_ELEMENTS(linear_attention_backward)

#if !SSMKIT_TEST_REFERENCES
namespace ssmkit::testing {

template <class T>
void run_kernel(attention_front front, const linear_attention_args<T>& a, threads& pool)
{
    switch (front) {
        case attention_front::simple_gla: return simple_gla(a, pool);
        case attention_front::gla: return gla(a, pool);
        case attention_front::gated_delta_rule: return gated_delta_rule(a, pool);
    }
}

template void run_kernel(attention_front, const linear_attention_args<double>&, threads&);
template void run_kernel(attention_front, const linear_attention_args<float>&, threads&);
template void run_kernel(attention_front, const linear_attention_args<bfloat16>&, threads&);

}  // namespace ssmkit::testing
#endif
