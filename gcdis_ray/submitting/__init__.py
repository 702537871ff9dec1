"""``gcdis submit``: a run as a job of a Ray cluster that is there already."""
