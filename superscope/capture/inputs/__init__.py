"""What a model reads: text or pictures as windows of fixed length, and the rules for which rows count."""
