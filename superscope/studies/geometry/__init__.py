"""Questions to a dictionary that is given."""
