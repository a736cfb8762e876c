"""Imported models against their makers' own inference code, box for box."""
