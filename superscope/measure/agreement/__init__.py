"""What is measured of two dictionaries: which atoms of one are in the other."""
