#include "operations.hpp"

#include <complex>

namespace golden {

template <class Args>
void operations::operator()(const Args& a) const
{
    if (reference) {
        mamba::references{}(a);
    } else {
        mamba::kernels{pool}(a);
    }
}

template void operations::operator()(const ssmkit::causal_conv1d_args<double>&) const;
template void operations::operator()(const ssmkit::causal_conv1d_backward_args<double>&) const;
template void operations::operator()(const ssmkit::causal_conv1d_update_args<double>&) const;
template void operations::operator()(const ssmkit::selective_scan_args<double>&) const;
template void operations::operator()(const ssmkit::selective_scan_backward_args<double>&) const;
template void operations::operator()(const ssmkit::selective_state_update_args<double>&) const;
template void operations::operator()(const ssmkit::ssd_args<double>&) const;
template void operations::operator()(const ssmkit::ssd_backward_args<double>&) const;
template void operations::operator()(const ssmkit::gated_norm_args<double>&) const;
template void operations::operator()(const ssmkit::gated_norm_backward_args<double>&) const;
template void operations::operator()(const ssmkit::add_norm_args<double>&) const;
template void operations::operator()(const ssmkit::add_norm_backward_args<double>&) const;
template void operations::operator()(const ssmkit::selective_scan_args<double, std::complex<double>>&) const;
template void operations::operator()(const ssmkit::selective_scan_backward_args<double, std::complex<double>>&) const;

template void operations::operator()(const ssmkit::causal_conv1d_args<float>&) const;
template void operations::operator()(const ssmkit::causal_conv1d_backward_args<float>&) const;
template void operations::operator()(const ssmkit::causal_conv1d_update_args<float>&) const;
template void operations::operator()(const ssmkit::selective_scan_args<float>&) const;
template void operations::operator()(const ssmkit::selective_scan_backward_args<float>&) const;
template void operations::operator()(const ssmkit::selective_state_update_args<float>&) const;
template void operations::operator()(const ssmkit::ssd_args<float>&) const;
template void operations::operator()(const ssmkit::ssd_backward_args<float>&) const;
template void operations::operator()(const ssmkit::gated_norm_args<float>&) const;
template void operations::operator()(const ssmkit::gated_norm_backward_args<float>&) const;
template void operations::operator()(const ssmkit::add_norm_args<float>&) const;
template void operations::operator()(const ssmkit::add_norm_backward_args<float>&) const;
template void operations::operator()(const ssmkit::selective_scan_args<float, std::complex<float>>&) const;
template void operations::operator()(const ssmkit::selective_scan_backward_args<float, std::complex<float>>&) const;

template void operations::operator()(const ssmkit::causal_conv1d_args<ssmkit::bfloat16>&) const;
template void operations::operator()(const ssmkit::causal_conv1d_backward_args<ssmkit::bfloat16>&) const;
template void operations::operator()(const ssmkit::causal_conv1d_update_args<ssmkit::bfloat16>&) const;
template void operations::operator()(const ssmkit::selective_scan_args<ssmkit::bfloat16>&) const;
template void operations::operator()(const ssmkit::selective_scan_backward_args<ssmkit::bfloat16>&) const;
template void operations::operator()(const ssmkit::selective_state_update_args<ssmkit::bfloat16>&) const;
template void operations::operator()(const ssmkit::ssd_args<ssmkit::bfloat16>&) const;
template void operations::operator()(const ssmkit::ssd_backward_args<ssmkit::bfloat16>&) const;
template void operations::operator()(const ssmkit::gated_norm_args<ssmkit::bfloat16>&) const;
template void operations::operator()(const ssmkit::gated_norm_backward_args<ssmkit::bfloat16>&) const;
template void operations::operator()(const ssmkit::add_norm_args<ssmkit::bfloat16>&) const;
template void operations::operator()(const ssmkit::add_norm_backward_args<ssmkit::bfloat16>&) const;
template void operations::operator()(const ssmkit::selective_scan_args<ssmkit::bfloat16, std::complex<float>>&) const;
template void operations::operator()(const ssmkit::selective_scan_backward_args<ssmkit::bfloat16, std::complex<float>>&) const;

}  // namespace golden
