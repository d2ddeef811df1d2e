#pragma once

// HiPPO: operators that remember a signal by its coefficients in an orthogonal basis (Gu et al., arXiv:2008.07669; Gu et al.,
// "How to train your HiPPO", arXiv:2206.12037), and the initialisations of S4, S4D, DSS and S5 made from them. Everything is
// computed in double; round at the end. Needs Eigen, 3.4 or newer. `Lazy` makes functions templates, so that only who calls one
// waits for the compiler to get through Eigen's decompositions (half a minute for all of them).

#include <ssmkit/hippo/diagonal.hpp>   // s4d_A, s4d_B, s4_mixture_init, dss_init, s5_init, s5_random_init
#include <ssmkit/hippo/dplr.hpp>       // nplr_to_dplr, hippo_nplr
#include <ssmkit/hippo/memory.hpp>     // legs_memory, legt_memory and their steps
#include <ssmkit/hippo/operators.hpp>  // hippo_transition, hippo_low_rank, hippo_basis
#include <ssmkit/hippo/perturbed.hpp>  // perturb_then_diagonalize, conjugate_half
