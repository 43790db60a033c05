// The formulas, for a CPU.
#pragma once

#include "mathematics.h"

#define FORMULA LAYERKIT_INLINE

namespace layerkit {
namespace LAYERKIT_SET {

using std::cos;
using std::exp;
using std::expm1;
using std::log;
using std::sin;
using std::sqrt;

#include "../formulas/divergence.h"
#include "../formulas/likelihoods.h"
#include "../formulas/philox.h"
#include "../formulas/updates.h"

}  // namespace LAYERKIT_SET
}  // namespace layerkit
