#pragma once

#include <ssmkit/add_norm.hpp>
#include <ssmkit/add_norm_backward.hpp>
#include <ssmkit/causal_conv1d.hpp>
#include <ssmkit/causal_conv1d_backward.hpp>
#include <ssmkit/causal_conv1d_update.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/gated_norm.hpp>
#include <ssmkit/gated_norm_backward.hpp>
#include <ssmkit/reference/add_norm.hpp>
#include <ssmkit/reference/add_norm_backward.hpp>
#include <ssmkit/reference/causal_conv1d.hpp>
#include <ssmkit/reference/causal_conv1d_backward.hpp>
#include <ssmkit/reference/causal_conv1d_update.hpp>
#include <ssmkit/reference/gated_norm.hpp>
#include <ssmkit/reference/gated_norm_backward.hpp>
#include <ssmkit/reference/selective_scan.hpp>
#include <ssmkit/reference/selective_scan_backward.hpp>
#include <ssmkit/reference/selective_state_update.hpp>
#include <ssmkit/reference/ssd.hpp>
#include <ssmkit/reference/ssd_backward.hpp>
#include <ssmkit/selective_scan.hpp>
#include <ssmkit/selective_scan_backward.hpp>
#include <ssmkit/selective_state_update.hpp>
#include <ssmkit/ssd.hpp>
#include <ssmkit/ssd_backward.hpp>

/// Who runs the operations of a composition, called with an operation's arguments. Kernels and references have the same
/// arguments, so a program that is written once on either of these can be judged by the other.
namespace mamba {

/// The kernels, on a pool of threads where they take one.
struct kernels {
    ssmkit::threads& pool;

    template <class T>
    void operator()(const ssmkit::causal_conv1d_args<T>& a) const
    {
        ssmkit::causal_conv1d(a, pool);
    }
    template <class T>
    void operator()(const ssmkit::causal_conv1d_backward_args<T>& a) const
    {
        ssmkit::causal_conv1d_backward(a, pool);
    }
    template <class T>
    void operator()(const ssmkit::causal_conv1d_update_args<T>& a) const
    {
        ssmkit::causal_conv1d_update(a);
    }
    template <class T, class P>
    void operator()(const ssmkit::selective_scan_args<T, P>& a) const
    {
        ssmkit::selective_scan(a, pool);
    }
    template <class T, class P>
    void operator()(const ssmkit::selective_scan_backward_args<T, P>& a) const
    {
        ssmkit::selective_scan_backward(a, pool);
    }
    template <class T>
    void operator()(const ssmkit::selective_state_update_args<T>& a) const
    {
        ssmkit::selective_state_update(a);
    }
    template <class T>
    void operator()(const ssmkit::ssd_args<T>& a) const
    {
        ssmkit::ssd(a, pool);
    }
    template <class T>
    void operator()(const ssmkit::ssd_backward_args<T>& a) const
    {
        ssmkit::ssd_backward(a, pool);
    }
    template <class T>
    void operator()(const ssmkit::gated_norm_args<T>& a) const
    {
        ssmkit::gated_norm(a, pool);
    }
    template <class T>
    void operator()(const ssmkit::gated_norm_backward_args<T>& a) const
    {
        ssmkit::gated_norm_backward(a, pool);
    }
    template <class T, class S>
    void operator()(const ssmkit::add_norm_args<T, S>& a) const
    {
        ssmkit::add_norm(a, pool);
    }
    template <class T, class S>
    void operator()(const ssmkit::add_norm_backward_args<T, S>& a) const
    {
        ssmkit::add_norm_backward(a, pool);
    }
};

/// The plain loops.
struct references {
    template <class T>
    void operator()(const ssmkit::causal_conv1d_args<T>& a) const
    {
        ssmkit::reference::causal_conv1d(a);
    }
    template <class T>
    void operator()(const ssmkit::causal_conv1d_backward_args<T>& a) const
    {
        ssmkit::reference::causal_conv1d_backward(a);
    }
    template <class T>
    void operator()(const ssmkit::causal_conv1d_update_args<T>& a) const
    {
        ssmkit::reference::causal_conv1d_update(a);
    }
    template <class T, class P>
    void operator()(const ssmkit::selective_scan_args<T, P>& a) const
    {
        ssmkit::reference::selective_scan(a);
    }
    template <class T, class P>
    void operator()(const ssmkit::selective_scan_backward_args<T, P>& a) const
    {
        ssmkit::reference::selective_scan_backward(a);
    }
    template <class T>
    void operator()(const ssmkit::selective_state_update_args<T>& a) const
    {
        ssmkit::reference::selective_state_update(a);
    }
    template <class T>
    void operator()(const ssmkit::ssd_args<T>& a) const
    {
        ssmkit::reference::ssd(a);
    }
    template <class T>
    void operator()(const ssmkit::ssd_backward_args<T>& a) const
    {
        ssmkit::reference::ssd_backward(a);
    }
    template <class T>
    void operator()(const ssmkit::gated_norm_args<T>& a) const
    {
        ssmkit::reference::gated_norm(a);
    }
    template <class T>
    void operator()(const ssmkit::gated_norm_backward_args<T>& a) const
    {
        ssmkit::reference::gated_norm_backward(a);
    }
    template <class T, class S>
    void operator()(const ssmkit::add_norm_args<T, S>& a) const
    {
        ssmkit::reference::add_norm(a);
    }
    template <class T, class S>
    void operator()(const ssmkit::add_norm_backward_args<T, S>& a) const
    {
        ssmkit::reference::add_norm_backward(a);
    }
};

}  // namespace mamba
