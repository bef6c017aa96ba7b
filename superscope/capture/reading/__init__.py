"""One pass of a model, rows out."""
