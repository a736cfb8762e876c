"""Which machine runs which cameras: a plan, who may run what, and what carries it out."""
