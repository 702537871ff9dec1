"""Naming what was discovered: clusters laid out for people, and the acts that they take."""
