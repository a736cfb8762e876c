"""What runs in a child: sources, stages, the batcher, the join."""
