"""How a search is done: what a training step runs, what judges an architecture, how the answer follows."""
