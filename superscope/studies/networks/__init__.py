"""Questions to real networks."""
