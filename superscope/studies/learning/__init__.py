"""Questions about learning a dictionary."""
