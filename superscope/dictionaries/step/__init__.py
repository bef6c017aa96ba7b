"""How a training step is made fast, below the architectures: sparse gradients, Adam, precision, memory, exchange."""
