// The formulas, for a CPU.  A formula is what a layer or a solver does to one element: FORMULA says
// how a function is declared, exp_of, log_of and sqrt_of are of either precision.  Nothing in them
// is of CPUs alone; the GPU's kernels have texts of their own so far (backends/cuda.py).
#pragma once

#include "mathematics.h"

#define FORMULA LAYERKIT_INLINE

namespace layerkit {
namespace LAYERKIT_SET {

using std::cos;
using std::erfc;
using std::exp;
using std::expm1;
using std::log;
using std::pow;
using std::sin;
using std::sqrt;

#include "../formulas/divergence.h"
#include "../formulas/likelihoods.h"
#include "../formulas/philox.h"
#include "../formulas/pose.h"
#include "../formulas/updates.h"

}  // namespace LAYERKIT_SET
}  // namespace layerkit
