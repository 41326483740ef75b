"""Types of the columns."""

import numpy as np
import numpy.typing as npt

#: Digests of 64 bits.
Digests = npt.NDArray[np.uint64]
#: Counts and lengths.
Counts = npt.NDArray[np.int64]
#: Where rows are in the columns.
Positions = npt.NDArray[np.int64]
#: Scores from 0 to 1, and measures.
Scores = npt.NDArray[np.float64]
#: Whether, row by row.
Mask = npt.NDArray[np.bool_]
