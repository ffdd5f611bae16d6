"""Search by meaning: cosine of every vector with the query's, in two exact steps.

All rows are compared as int8 (each with its own scale), which a modern processor does at the speed of memory;
the best few hundred are compared again as stored, in float16. Nothing is pruned and nothing is trained, so there
is no recall to lose but by rounding, and a changed document changes its own rows only.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdtrue.core.errors import MissingExtra
from holdtrue.llm.retrieval.arrays import Array
from holdtrue.llm.retrieval.embedding import Vector
from holdtrue.llm.retrieval.ranking import Ranked, best

# Rows compared again for each one that is wanted, and at least so many.
_AGAIN, _AGAIN_LEAST = 4, 200


def quantised(vectors: NDArray[np.float16]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return rows as int8 [n, d] and the scale of each, float32 [n]: row ≈ scale · int8."""
    wide = vectors.astype(np.float32)
    scales = (np.abs(wide).max(axis=1, initial=0.0) / np.float32(127)).astype(np.float32)
    safe = np.where(scales > 0, scales, np.float32(1))
    return np.rint(wide / safe[:, None]).astype(np.int8), scales


class VectorIndex:
    """Search vectors of length 1 for those nearest to a query."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        try:
            import numkong
        except ImportError:
            raise MissingExtra.of("llm", "numkong") from None
        self._products: Any = numkong.cdist
        self._exact, self._rough, self._scales = arrays["vectors"], arrays["rough"], arrays["scales"]

    @property
    def dimensions(self) -> int:
        """Return the length of a vector."""
        return self._exact.shape[1]

    def search(self, query: Vector, count: int) -> Ranked:
        """Return the rows nearest to `query` float32 [d], best first, and their cosines; ties by row."""
        if not len(self._exact):
            return np.empty(0, np.int64), np.empty(0, np.float32)
        peak = float(np.abs(query).max()) / 127.0
        rough = np.rint(query / peak).astype(np.int8)[None]
        products = np.asarray(self._products(rough, self._rough, "dot"))[0]
        rows, _ = best(products.astype(np.float32) * self._scales, max(_AGAIN * count, _AGAIN_LEAST))
        cosines = self._exact[rows].astype(np.float32) @ query
        order = np.lexsort((rows, -cosines))[:count]
        return rows[order], cosines[order]
