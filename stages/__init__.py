"""The product: what happens to a frame. One stage per file."""
