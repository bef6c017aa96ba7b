"""What is run: a model and its tokenizer, and the places in it."""
