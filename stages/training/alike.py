"""Pictures that are equal or nearly so: a test on the twins of training pictures tells nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from stages.training.datasets import DataSet, Sample

# of 256: a picture saved again as a poor JPEG or at two thirds of its size differs in 4, and 9 pictures
# of 10 in 9 or less; those of a camera from other days differ in 11 and more, different ones in 60
ALIKE_BITS = 12
LEAST_RELIEF = 24  # set bits below which a picture is too plain to be told from others
_BLOCK = 512  # pictures compared with all others at a time


def pairs(samples: Sequence[Sample]) -> Iterator[tuple[int, int]]:
    """Indices i < j of pictures that are equal byte for byte, or look alike; each i with some j."""
    first: dict[bytes, int] = {}
    for index, sample in enumerate(samples):
        known = first.setdefault(sample.digest, index) if sample.digest else index
        if known != index:
            yield known, index
    bits = _bits(samples)  # (N, 4)
    plain = np.bitwise_count(bits).sum(axis=1) < LEAST_RELIEF
    for start in range(0, len(bits), _BLOCK):
        block = bits[start : start + _BLOCK]
        distance = np.bitwise_count(block[:, None] ^ bits[None, start:]).sum(axis=2, dtype=np.int16)
        for i, j in np.argwhere(distance <= ALIKE_BITS).tolist():
            if i < j and not plain[start + i] and not plain[start + j]:
                yield start + i, start + j


def shared(training: DataSet, validation: DataSet) -> tuple[int, str]:
    """How many pictures of `validation` are, or look like, pictures of `training`; and one such pair."""
    both = (*training.samples, *validation.samples)
    border = len(training.samples)
    twins = {j: i for i, j in pairs(both) if i < border <= j}
    example = ""
    if twins:
        j, i = next(iter(twins.items()))
        example = f"{both[j].path} and {both[i].path}"
    return len(twins), example


def _bits(samples: Sequence[Sample]) -> npt.NDArray[np.uint64]:
    """The likeness of each picture: uint64 (N, 4)."""
    data = b"".join(sample.likeness.to_bytes(32) for sample in samples)
    return np.frombuffer(data, np.uint64).reshape(-1, 4)
