"""Questions that change x: what an edit does, what it costs, what else moved."""
