"""Where a box is, and where it will be: a Kalman filter in numbers instead of matrices. Pure."""

from __future__ import annotations

import math
from typing import Any

_NOMINAL_S = 0.004  # a step that is one frame but for this is one frame, as the library has it
_TINY = 1e-6  # px, as there


class BoxEstimator:
    """The library's `XCYCSRStateEstimator` for ByteTrack, with the same results, in a tenth of its time.

    A box is its middle, its area and its aspect; the first three have a velocity. The noise is the same
    for each of them and independent, so no coordinate knows of another, and the covariance of 7x7 is one
    of 2x2 that the three share, and one number for the aspect. What the library calls matrices, to be
    multiplied and given back, are numbers here.
    """

    __slots__ = (
        "aspect",
        "aspect_var",
        "at",
        "covariance",
        "measurement_noise",
        "process_noise",
        "speed",
    )

    def __init__(self, bbox: Any) -> None:
        """bbox: x1, y1, x2, y2 as an array (4,), px; where it is seen first."""
        *at, self.aspect = _measured(bbox)
        self.at: list[float] = at  # x and y of the middle, px; area, px²
        self.speed = [0.0, 0.0, 0.0]  # of them, a frame
        self.covariance = (1.0, 0.0, 1.0)  # of a coordinate, of it and its speed, of its speed
        self.aspect_var = 1.0
        self.measurement_noise = self.process_noise = 1.0

    @property
    def kf(self) -> BoxEstimator:
        """Where the library looks for the noise."""
        return self

    def set_kf_covariances(self, *, measurement_noise: float, process_noise: float) -> None:
        """The noise of one frame."""
        self.measurement_noise, self.process_noise = measurement_noise, process_noise

    def predict(self, frame_step: float = 1.0, frame_rate: float = 30.0) -> None:
        """Go on by so many frames of the rate, in Hz."""
        step, q = frame_step, self.process_noise
        at, speed = self.at, self.speed
        if at[2] + step * speed[2] <= 0:
            speed[2] = 0.0
        self.at = [at[0] + step * speed[0], at[1] + step * speed[1], at[2] + step * speed[2]]
        here, both, there = self.covariance
        here, both = here + step * (2 * both + step * there), both + step * there
        if abs(step - 1) <= _NOMINAL_S * frame_rate:
            self.covariance = here + q, both, there + q
        else:  # an acceleration that is white noise
            area = q * step * step
            self.covariance = here + area * step * step / 4, both + area * step / 2, there + area
        self.aspect_var += q

    def update(self, bbox: Any) -> None:
        """It is seen, here."""
        *seen, aspect = _measured(bbox)
        here, both, there = self.covariance
        total = here + self.measurement_noise
        gain, speed_gain = here / total, both / total
        for i in range(3):
            miss = seen[i] - self.at[i]
            self.at[i] += gain * miss
            self.speed[i] += speed_gain * miss
        self.covariance = (1 - gain) * here, (1 - gain) * both, there - speed_gain * both
        gain = self.aspect_var / (self.aspect_var + self.measurement_noise)
        self.aspect += gain * (aspect - self.aspect)
        self.aspect_var *= 1 - gain

    def state_to_bbox(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 now, px."""
        x, y, area = self.at
        width = math.sqrt(max(0.0, area * self.aspect))
        height = area / width if width else 0.0
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2

    def numbers(self) -> tuple[float, ...]:
        """All 11 that a filter is beside its noise."""
        return *self.at, *self.speed, self.aspect, *self.covariance, self.aspect_var

    def set_numbers(self, numbers: list[float]) -> None:
        """What `numbers` returned."""
        self.at, self.speed, self.aspect = numbers[:3], numbers[3:6], numbers[6]
        self.covariance, self.aspect_var = (numbers[7], numbers[8], numbers[9]), numbers[10]


def _measured(bbox: Any) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = bbox.tolist()
    width, height = x2 - x1, y2 - y1
    return x1 + width / 2, y1 + height / 2, width * height, width / (height + _TINY)
