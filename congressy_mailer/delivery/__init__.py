"""One slice of delivery: claim, compose, hand over, record."""
