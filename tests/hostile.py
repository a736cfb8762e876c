"""Sources that end their process, for tests of what the rest of a run makes of it."""

import os

from parts import Pattern


class AbortsAtOpen(Pattern):
    """As a decoder does that trips over the header of a file."""

    def open(self):
        os.abort()


class AbortsLater(Pattern):
    """As a decoder does that trips over a picture: the third one after each start."""

    def read(self, buffer):
        if getattr(self, "_n", 0) >= 3:
            os.abort()
        return super().read(buffer)
