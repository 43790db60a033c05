// Activations on their own.  ACTIVATION is one of formulas/activations.h, `setting` its number.
#include "device.h"
#include "../../formulas/activations.h"

KERNEL activate(i64 size, real setting, const real* x, real* y)
{
    i64 i = place();
    if (i < size) y[i] = ACTIVATION<real>(setting).value(x[i]);
}

KERNEL differentiate(i64 size, real setting, const real* y, const real* dy, real* dx)
{
    i64 i = place();
    if (i < size) dx[i] = ACTIVATION<real>(setting).gradient(y[i], dy[i]);
}
