"""Questions to toy models."""
