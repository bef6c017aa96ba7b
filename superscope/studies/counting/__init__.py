"""How many features stand behind these rows: the search for a setting that sees them all, and the combined answer."""
