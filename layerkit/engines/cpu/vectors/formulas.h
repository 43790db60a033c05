// The formulas, for a CPU.  A formula is what a layer or a solver does to one element: FORMULA says
// how a function is declared, exp_of, log_of and sqrt_of are of either precision.
#pragma once

#include "mathematics.h"

#define FORMULA LAYERKIT_INLINE

namespace layerkit {
namespace LAYERKIT_SET {

using std::atan2;
using std::cos;
using std::erfc;
using std::exp;
using std::expm1;
using std::fabs;
using std::hypot;
using std::log;
using std::log1p;
using std::pow;
using std::sin;
using std::sqrt;
using std::tanh;

#include "../../formulas/activations.h"
#include "../../formulas/arithmetic.h"
#include "../../formulas/losses/divergence.h"
#include "../../formulas/losses/likelihoods.h"
#include "../../formulas/losses/pairs.h"
#include "../../formulas/philox.h"
#include "../../formulas/pooling.h"
#include "../../formulas/pose.h"
#include "../../formulas/updates.h"
#include "../../formulas/weights/normalization.h"
#include "../../formulas/weights/recurrent.h"

}  // namespace LAYERKIT_SET
}  // namespace layerkit
