"""Recurrent layers, LSTM and GRU: a state that goes through the steps of a sequence.

Both compute what the inputs of all steps add to the gates in one product, and go through the steps
with what the state adds.  Work space is in the order of steps, (steps, n, ...), so that each step
has its numbers side by side.
"""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from layerkit.backends.base import Array
from layerkit.blob import Blob
from layerkit.initializers import Init
from layerkit.layer import Layer, Shape
from layerkit.settings import Count, Finite, Flag, NotNegative, Tops
from layerkit.settings.tuning import Tuning


class Recurrent(Layer):
    """Base class of layers with a state h, which begins as 0 and is changed in every step.

    A subclass defines `advance`, the gates and h of a step, and `retreat`, its derivative.

    Args:
        units: size of h.
        last: True for a top that holds the last h alone, False (default) for those of all steps.
        reverse: True goes from the last step to the first; the top is in the order of the bottom.
        weight, recurrent, bias: initialisers of W, U and b.
        l1, l2: regularisation of W and U (not of b); see Parameter.

    Attributes:
        gates: how many numbers the products have for each unit.
        direct: whether a part of d loss / d h goes to the step before through no gate.
    """

    decided = (
        *Layer.decided,
        "units",
        "last",
        "reverse",
        "weight_init",
        "recurrent_init",
        "bias_init",
        "l1",
        "l2",
    )
    gates: ClassVar[int]
    direct: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        bottom: str,
        units: Count,
        last: Flag,
        reverse: Flag,
        weight: Init,
        recurrent: Init,
        bias: Init,
        l1: NotNegative,
        l2: NotNegative,
        tops: Tops | None,
        **common: Unpack[Tuning],
    ):
        super().__init__(name, [bottom], tops, **common)
        self.units, self.last, self.reverse = units, last, reverse
        self.weight_init, self.recurrent_init, self.bias_init = weight, recurrent, bias
        self.l1, self.l2 = l1, l2

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declare W, U, b and buffers; return the top's shape."""
        if len(shapes[0]) != 2:
            self.fail(
                f"its bottom {self.bottoms[0]!r} must hold sequences (steps, features), got shape "
                f"{shapes[0]}"
            )
        (self.steps, self.features), units = shapes[0], self.units
        width = self.gates * units
        shape = (self.features, width)
        self.w = self.parameter("weight", shape, self.weight_init, self.l1, self.l2)
        self.u = self.parameter("recurrent", (units, width), self.recurrent_init, self.l1, self.l2)
        self.b = self.parameter("bias", (width,), self.bias_init)
        self.inputs, self.input_slopes = self.buffer(shapes[0]), self.buffer(shapes[0])
        self.states = self.buffer((self.steps, units))
        self.values = self.buffer((self.steps, width))  # of the gates
        self.slopes = self.buffer((self.steps, width))  # d loss / d what goes into the gates
        self.carried_gates = self.buffer((width,))  # h U of the step before
        self.carried = self.buffer((units,))  # d loss / d h, from the steps that follow
        return [(units,) if self.last else (self.steps, units)]

    def multiplications(self) -> int:
        """Return the number of weights times the number of steps."""
        return (self.w.size + self.u.size) * self.steps

    def product(self, a: Array, b: Array, out: Array, add: bool = False) -> None:
        """Compute out = a b, or add it to `out`."""
        self.backend.gemm(a, b, out, add)

    def advance(self, step: int, product: Array | None) -> None:
        """Compute gates and h of a step, given h U of the one before it, if there is one."""
        raise NotImplementedError

    def retreat(self, step: int, dh: Array, dy: Array | None) -> None:
        """Compute the slopes of a step.

        Args:
            dh: d loss / d h by way of the steps that follow, if the layer is `direct` to be left as
                what goes directly to the step before.
            dy: that from the step's own top, or None where there is only the last.
        """
        raise NotImplementedError

    def by_step(self, buffer: Blob) -> Array:
        """Return a buffer as (steps, n, size)."""
        return buffer.data.reshape(self.steps, -1, buffer.shape[1])

    def part(self, array: Array, number: int) -> Array:
        """Return those columns (n, units) that belong to one gate."""
        return array[:, number * self.units : (number + 1) * self.units]

    def recurrent_slopes(self) -> Array:
        """Return d loss / d (h U), (steps, n, gates * units): for most that of the whole input."""
        return self.by_step(self.slopes)

    def _passage(self, array: Array) -> Array:
        """Return a view of (n, steps, size) as (steps, n, size), in the order of the passage."""
        turned = array.swapaxes(0, 1)
        return turned[::-1] if self.reverse else turned

    def forward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Go through the steps."""
        self.go(bottoms, tops, self)

    def backward(self, bottoms: list[Blob], tops: list[Blob]) -> None:
        """Go back through the steps; then compute dW, dU, db and dx of the slopes of all."""
        self.go_back(bottoms, tops, self)

    def go(self, bottoms: list[Blob], tops: list[Blob], by: Any) -> None:
        """Do what `forward` does, with `product` and `advance` of this layer or of a runner."""
        inputs, values, h = map(self.by_step, (self.inputs, self.values, self.states))
        inputs[...] = self._passage(bottoms[0].data)
        flat = values.reshape(-1, values.shape[2])
        by.product(inputs.reshape(-1, self.features), self.w.data, flat)
        for step in range(self.steps):
            if step:
                by.product(h[step - 1], self.u.data, self.carried_gates.data)
            by.advance(step, self.carried_gates.data if step else None)
        if self.last:
            tops[0].data[...] = h[-1]
        else:
            self._passage(tops[0].data)[...] = h

    def go_back(self, bottoms: list[Blob], tops: list[Blob], by: Any) -> None:
        """Do what `backward` does, with `product` and `retreat` of this layer or of a runner."""
        inputs, slopes, h = map(self.by_step, (self.inputs, self.slopes, self.states))
        through, dh = self.recurrent_slopes(), self.carried.data
        dy = None if self.last else self._passage(tops[0].diff)
        dh[...] = tops[0].diff if dy is None else 0
        for step in reversed(range(self.steps)):
            by.retreat(step, dh, None if dy is None else dy[step])
            if step:
                by.product(through[step], self.u.data.T, dh, add=self.direct)
        flat = slopes.reshape(-1, slopes.shape[2])
        if self.w.trainable:
            by.product(inputs.reshape(-1, self.features).T, flat, self.w.diff)
        if self.b.trainable:
            self.xp.sum(flat, axis=0, out=self.b.diff)
        if self.u.trainable:
            self.u.diff.fill(0)
            if self.steps > 1:
                after = through[1:].reshape(-1, flat.shape[1])
                by.product(h[:-1].reshape(-1, self.units).T, after, self.u.diff)
        if bottoms[0].diff is not None:
            dx = self.by_step(self.input_slopes)
            by.product(flat, self.w.data.T, dx.reshape(-1, self.features))
            self._passage(bottoms[0].diff)[...] = dx

    def _sigmoid(self, x: Array) -> None:
        """Compute the sigmoid in place, as (1 + tanh(x / 2)) / 2."""
        x *= 0.5
        self.xp.tanh(x, out=x)
        x += 1
        x *= 0.5


class LSTM(Recurrent):
    """Long short-term memory: a state h, and a memory c that gates write, keep and read.

    In each step, with the gates i, f, o = sigmoid and g = tanh of their parts of x W + h U + b, and
    the constant `forget` added to that of f,

        c = f c + i g,   h = o tanh(c)

    where h and c on the right are those of the step before, 0 before the first.

    Shapes: bottom (n, steps, features); top (n, steps, units), or (n, units) with last=True.

    Args:
        units: size of h and c.
        last: True for a top that holds the last h alone, False (default) for those of all steps.
        reverse: True goes from the last step to the first, False (default) from the first; the top
            is in the order of the bottom.  With Concat (axis=-1) beside a layer that goes forward
            True makes a bidirectional one.
        forget: added to what goes into f, default 1, so that the memory is kept at first.
        weight: initialiser of W, by default "xavier".
        recurrent: initialiser of U, by default "orthogonal".
        bias: initialiser of b, default 0.
        l1, l2: regularisation of W and U (not of b); see Parameter.

    Parameters: weight W (features, 4 units), recurrent U (units, 4 units), bias b (4 units,), all
    in the order i, f, g, o.

    Raises:
        NetError: a bottom that holds no sequences.

    Source: Hochreiter and Schmidhuber, "Long short-term memory" (1997), with the forget gate of
    Gers, Schmidhuber and Cummins (2000), and the start of it that Jozefowicz et al. (2015) advise.
    """

    recordable = True
    gates = 4

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        units: Count,
        last: Flag = False,
        reverse: Flag = False,
        forget: Finite = 1.0,
        weight: Init = "xavier",
        recurrent: Init = "orthogonal",
        bias: Init = 0.0,
        l1: NotNegative = 0.0,
        l2: NotNegative = 0.0,
        tops: Tops | None = None,
        **common: Unpack[Tuning],
    ):
        super().__init__(
            name, bottom, units, last, reverse, weight, recurrent, bias, l1, l2, tops, **common
        )
        self.forget = forget

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declare W, U, b and buffers; return the top's shape."""
        tops = super().setup(shapes)
        self.memories = self.buffer((self.steps, self.units))
        self.memory_carried = self.buffer((self.units,))  # d loss / d c, from the steps that follow
        return tops

    def advance(self, step: int, product: Array | None) -> None:
        """Compute i, f, g and o, and c and h of them."""
        z, c = self.by_step(self.values)[step], self.by_step(self.memories)
        z += self.b.data
        if product is not None:
            z += product
        i, f, g, o = (self.part(z, number) for number in range(4))
        f += self.forget
        for gate in (i, f, o):
            self._sigmoid(gate)
        self.xp.tanh(g, out=g)
        self.xp.multiply(i, g, out=c[step])
        if step:
            c[step] += f * c[step - 1]
        self.xp.multiply(o, self.xp.tanh(c[step]), out=self.by_step(self.states)[step])

    def retreat(self, step: int, dh: Array, dy: Array | None) -> None:
        """Compute, with t = tanh(c) and dc = dh o (1 - t^2) + what comes from the step after,

        di = dc g i (1 - i), df = dc c_before f (1 - f), dg = dc i (1 - g^2), do = dh t o (1 - o);
        dc f goes on to the step before.
        """
        xp, c, dc = self.xp, self.by_step(self.memories), self.memory_carried.data
        i, f, g, o = (self.part(self.by_step(self.values)[step], k) for k in range(4))
        di, df, dg, do = (self.part(self.by_step(self.slopes)[step], k) for k in range(4))
        t = xp.tanh(c[step])
        if dy is not None:
            dh += dy
        if step == self.steps - 1:
            dc.fill(0)
        dc += dh * o * (1 - t * t)
        xp.multiply(dc * g, i * (1 - i), out=di)
        if step:
            xp.multiply(dc * c[step - 1], f * (1 - f), out=df)
        else:
            df.fill(0)
        xp.multiply(dc * i, 1 - g * g, out=dg)
        xp.multiply(dh * t, o * (1 - o), out=do)
        dc *= f


class GRU(Recurrent):
    """Gated recurrent unit: a state h that one gate resets and another updates.

    In each step, with r, z and n for the parts of W, U and b that belong to them,

        r = sigmoid(x W_r + h U_r + b_r),   z = sigmoid(x W_z + h U_z + b_z)
        m = tanh(x W_n + b_n + r (h U_n))
        h = (1 - z) m + z h

    where h on the right is that of the step before, 0 before the first.  As in cuDNN the reset gate
    acts after the product by U; in the first papers it acted on h before it.

    Shapes: bottom (n, steps, features); top (n, steps, units), or (n, units) with last=True.

    Args:
        units: size of h.
        last: True for a top that holds the last h alone, False (default) for those of all steps.
        reverse: True begins at the last step, default False; the top is in the bottom's order.
        weight: initialiser of W, by default "xavier".
        recurrent: initialiser of U, by default "orthogonal".
        bias: initialiser of b, default 0.
        l1, l2: regularisation of W and U (not of b); see Parameter.

    Parameters: weight W (features, 3 units), recurrent U (units, 3 units), bias b (3 units,), all
    in the order r, z, n.

    Raises:
        NetError: a bottom that holds no sequences.

    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical
    machine translation" (2014), section 2.3.
    """

    recordable = True
    gates = 3
    direct = True

    def __init__(
        self,
        name: str,
        bottom: str,
        *,
        units: Count,
        last: Flag = False,
        reverse: Flag = False,
        weight: Init = "xavier",
        recurrent: Init = "orthogonal",
        bias: Init = 0.0,
        l1: NotNegative = 0.0,
        l2: NotNegative = 0.0,
        tops: Tops | None = None,
        **common: Unpack[Tuning],
    ):
        super().__init__(
            name, bottom, units, last, reverse, weight, recurrent, bias, l1, l2, tops, **common
        )

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        """Declare W, U, b and buffers; return the top's shape."""
        tops = super().setup(shapes)
        self.recalled = self.buffer((self.steps, self.units))  # h U_n
        self.through = self.buffer((self.steps, self.gates * self.units))  # d loss / d (h U)
        return tops

    def recurrent_slopes(self) -> Array:
        """Return d loss / d (h U), which differs from d loss / d (x W) by r in the last part."""
        return self.by_step(self.through)

    def advance(self, step: int, product: Array | None) -> None:
        """Compute r, z and m, and h of them."""
        xp, h = self.xp, self.by_step(self.states)
        values, recalled = self.by_step(self.values)[step], self.by_step(self.recalled)[step]
        gates, (r, z, m) = values[:, : 2 * self.units], (self.part(values, k) for k in range(3))
        values += self.b.data
        if product is not None:
            gates += product[:, : 2 * self.units]
        self._sigmoid(gates)
        recalled[...] = 0 if product is None else self.part(product, 2)
        m += r * recalled
        xp.tanh(m, out=m)
        xp.multiply(1 - z, m, out=h[step])
        if step:
            h[step] += z * h[step - 1]

    def retreat(self, step: int, dh: Array, dy: Array | None) -> None:
        """Compute dn = dh (1 - z) (1 - m^2), dz = dh (h_before - m) z (1 - z) and

        dr = dn (h U_n) r (1 - r); those of h U are equal but for the last, dn r.  h itself passes
        on dh z.
        """
        xp, h, units = self.xp, self.by_step(self.states), self.units
        if dy is not None:
            dh += dy
        r, z, m = (self.part(self.by_step(self.values)[step], k) for k in range(3))
        slopes, through = self.by_step(self.slopes)[step], self.by_step(self.through)[step]
        dr, dz, dn = (self.part(slopes, k) for k in range(3))
        xp.multiply(dh * (1 - z), 1 - m * m, out=dn)
        before = h[step - 1] - m if step else -m
        xp.multiply(dh * before, z * (1 - z), out=dz)
        xp.multiply(dn * self.by_step(self.recalled)[step], r * (1 - r), out=dr)
        through[:, : 2 * units] = slopes[:, : 2 * units]
        xp.multiply(dn, r, out=self.part(through, 2))
        dh *= z
