#pragma once

// All operations on the CPU. A program that uses one of them may include its header alone.

#include <ssmkit/add_norm.hpp>
#include <ssmkit/add_norm_backward.hpp>
#include <ssmkit/causal_conv1d.hpp>
#include <ssmkit/causal_conv1d_backward.hpp>
#include <ssmkit/causal_conv1d_update.hpp>
#include <ssmkit/causal_conv1d_varlen_states.hpp>
#include <ssmkit/discretize.hpp>
#include <ssmkit/fft_conv.hpp>
#include <ssmkit/fft_conv_backward.hpp>
#include <ssmkit/fft_conv_stream.hpp>
#include <ssmkit/gated_norm.hpp>
#include <ssmkit/gated_norm_backward.hpp>
#include <ssmkit/linear_attention.hpp>
#include <ssmkit/linear_attention_backward.hpp>
#include <ssmkit/linear_attention_update.hpp>
#include <ssmkit/linear_scan.hpp>
#include <ssmkit/linear_scan_backward.hpp>
#include <ssmkit/long_conv_kernel.hpp>
#include <ssmkit/noncausal_ssd.hpp>
#include <ssmkit/parameters.hpp>
#include <ssmkit/segments.hpp>
#include <ssmkit/selective_scan.hpp>
#include <ssmkit/selective_scan_backward.hpp>
#include <ssmkit/selective_state_update.hpp>
#include <ssmkit/separable_conv.hpp>
#include <ssmkit/sgconv_kernel.hpp>
#include <ssmkit/shift_kernel.hpp>
#include <ssmkit/ssd.hpp>
#include <ssmkit/ssd_backward.hpp>
#include <ssmkit/toeplitz.hpp>
