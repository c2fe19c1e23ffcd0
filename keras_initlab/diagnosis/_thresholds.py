"""Every number beyond which something is wrong, with the argument for it."""

import numpy as np

# ---- weights -------------------------------------------------------------------------

# The textbook's schemes differ by factors of up to 2; SpectralNorm's 0.9 is half of a
# unit gain. Farther off than these, a scale is no choice of scheme.
GAIN_BELOW, GAIN_ABOVE = 3.0, 2.0
# Singular values of an orthogonal kernel in half precision differ by less.
LEAST_SINGULAR_RATIO = 0.99

# ---- anywhere ------------------------------------------------------------------------

# What float32, in which models compute, can hold.
LARGEST = float(np.finfo("float32").max)
FINITE = -LARGEST, LARGEST

# ---- a signal, on one batch ----------------------------------------------------------

# He et al. 2015 (1502.01852, figures 2 and 3): with Glorot's scale, 22 layers of ReLU
# (a signal 2^11 times smaller) converge later, 30 layers (2^15) not at all. A thousand
# lies below both, and is where float16 ends to resolve what is added to 1.
SPAN_OF_A_BATCH = 1e3
# Every scheme of initialization assumes inputs of about unit size.
INPUT_SPAN = 10.0
# Rounding alone makes float32 outputs that should be alike differ by about 1e-7.
ALIKE = 1e-6
# The smallest number that float32 resolves in full: a gradient below it is none.
LEAST_GRADIENT = 2.0**-126
# A layer of which more than half is lost has less than half of its width. A random ReLU
# layer shows half of its units as 0 of a single example.
LOST_SHARE = 0.5

# ---- a training, step by step --------------------------------------------------------

# A layer that keeps the size of the signal multiplies it by about 1; a factor of 100 at
# one layer, or of 1e4 in either direction over all, is far out of what trains.
SIGNAL_LEAP, SIGNAL_SPAN = 100.0, 1e4
# Norms of neighboring kernels differ by a factor of a few in what trains, and by tens
# next to a bottleneck. float32 gradients a hundred thousand times smaller than the
# largest do nothing within a usual number of steps, at a rate that the largest bears.
GRADIENT_LEAP, GRADIENT_LEAP_APART = 100.0, 10.0
GRADIENT_SPAN = 1e5
# Norms of successive batches scatter by a factor of a few.
GRADIENT_LEAP_IN_TIME = 100.0
# About 1e-3 of a weight's norm a step is what healthy training shows.
LARGE_UPDATE = 0.1
