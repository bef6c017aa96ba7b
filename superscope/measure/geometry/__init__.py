"""What is measured of W: overlap, capacity, axes, polytopes."""
