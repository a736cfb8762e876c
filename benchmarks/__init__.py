"""One file per question; each prints its figures beside their targets and writes JSON."""
