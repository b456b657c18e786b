"""Clean sets: readers, preprocessing, splits, gates. No torch."""
