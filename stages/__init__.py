"""The product: what happens to a frame. One stage per file."""

import os

# ONNX Runtime, from 1.29 on, tells its maker about each session (model, hashes, host) unless this is set
# before it is loaded. Cameras are nobody else's business.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
