"""Training: a task says what, the loop says when, a strategy says on how many workers."""
