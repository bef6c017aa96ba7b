"""What is measured of x itself."""
