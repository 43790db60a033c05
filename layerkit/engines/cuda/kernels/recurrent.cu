// One step of a recurrent layer, with a thread for each unit of each example.  Arrays that a first
// step lacks are 0; rows of `dy`, if it is there, lie `apart` numbers apart.
#include "device.h"
#include "../../formulas/activations.h"
#include "../../formulas/weights/recurrent.h"

// What goes into gate number `gate`: x W, h U and b, those that there are.
FORMULA real entering(
    i64 gate, i64 at, i64 unit, i64 units, const real* values, const real* product, const real* bias)
{
    real recurrent = product ? product[at + gate * units] : (real)0;
    return values[at + gate * units] + recurrent + bias[gate * units + unit];
}

// d loss / d h, by way of the steps that follow and of the step's own top.
FORMULA real whole_slope(i64 i, i64 units, const real* dh, const real* dy, i64 apart)
{
    return dy ? dh[i] + dy[i / units * apart + i % units] : dh[i];
}

KERNEL lstm_advance(
    i64 size, i64 units, real forget, const real* bias, const real* product, real* values,
    const real* before, real* memory, real* state)
{
    i64 i = place();
    if (i >= size) return;
    i64 unit = i % units, at = i / units * 4 * units + unit;
    LstmUnit<real> gates;
    gates.i = entering(0, at, unit, units, values, product, bias);
    gates.f = entering(1, at, unit, units, values, product, bias) + forget;
    gates.g = entering(2, at, unit, units, values, product, bias);
    gates.o = entering(3, at, unit, units, values, product, bias);
    real c = before ? before[i] : (real)0;
    state[i] = gates.advance(c);
    memory[i] = c;
    values[at] = gates.i;
    values[at + units] = gates.f;
    values[at + 2 * units] = gates.g;
    values[at + 3 * units] = gates.o;
}

KERNEL lstm_retreat(
    i64 size, i64 units, i64 last, const real* values, const real* before, const real* memory,
    const real* dh, const real* dy, i64 apart, real* dmemory, real* slopes)
{
    i64 i = place();
    if (i >= size) return;
    i64 at = i / units * 4 * units + i % units;
    LstmUnit<real> gates{
        values[at], values[at + units], values[at + 2 * units], values[at + 3 * units]};
    real dc = last ? (real)0 : dmemory[i];
    real slope = whole_slope(i, units, dh, dy, apart);
    gates.retreat(before ? before[i] : (real)0, memory[i], slope, dc);
    dmemory[i] = dc;
    slopes[at] = gates.i;
    slopes[at + units] = gates.f;
    slopes[at + 2 * units] = gates.g;
    slopes[at + 3 * units] = gates.o;
}

KERNEL gru_advance(
    i64 size, i64 units, const real* bias, const real* product, real* values, real* recalled,
    const real* before, real* state)
{
    i64 i = place();
    if (i >= size) return;
    i64 unit = i % units, at = i / units * 3 * units + unit;
    GruUnit<real> gates;
    gates.r = entering(0, at, unit, units, values, product, bias);
    gates.z = entering(1, at, unit, units, values, product, bias);
    gates.m = entering(2, at, unit, units, values, nullptr, bias);
    real h = product ? product[at + 2 * units] : (real)0;
    recalled[i] = h;
    state[i] = gates.advance(h, before ? before[i] : (real)0);
    values[at] = gates.r;
    values[at + units] = gates.z;
    values[at + 2 * units] = gates.m;
}

KERNEL gru_retreat(
    i64 size, i64 units, const real* values, const real* recalled, const real* before,
    real* dh, const real* dy, i64 apart, real* slopes, real* through)
{
    i64 i = place();
    if (i >= size) return;
    i64 at = i / units * 3 * units + i % units;
    GruUnit<real> gates{values[at], values[at + units], values[at + 2 * units]};
    real slope = whole_slope(i, units, dh, dy, apart), recurrent;
    gates.retreat(recalled[i], before ? before[i] : (real)0, slope, recurrent);
    dh[i] = slope;
    slopes[at] = through[at] = gates.r;
    slopes[at + units] = through[at + units] = gates.z;
    slopes[at + 2 * units] = gates.m;
    through[at + 2 * units] = recurrent;
}
