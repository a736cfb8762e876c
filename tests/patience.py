"""How long a test waits for what must happen."""

# Not a bound on speed: what takes this long hangs, also beside busy cores. pytest's own limit is 300 s.
BOUND_S = 240.0
