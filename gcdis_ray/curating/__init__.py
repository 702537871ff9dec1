"""What people decide about discovered classes: a log of acts by crop, and what follows from it."""
