"""What a trainer reads: rows in memory, in a store, or computed as they are asked for."""
