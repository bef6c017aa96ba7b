"""What is measured of f."""
