"""Whether a host has what a run needs, and how fast it is."""
