"""Numbers that more than one part of the galaxy pipeline must agree on."""

# An 8-bit picture holds its intensities, 0 to 1, in steps of 1/255.  Rounding to the nearest step
# adds an error uniform over one step, whose variance is step^2 / 12.  No model can honestly claim
# to know a pixel better than that, and a likelihood without a floor is unbounded: a variance may
# shrink towards zero on a pixel that is reproduced exactly.
PIXEL_VARIANCE_FLOOR = (1 / 255) ** 2 / 12
