"""The runtime: how frames move between processes. No torch, no cv2."""
