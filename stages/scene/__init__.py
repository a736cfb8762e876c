"""What objects do in places: a stage on results that were tracked."""
