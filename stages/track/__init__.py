"""Which boxes of different frames are one object: a stage on results."""
