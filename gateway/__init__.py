"""Answers the door: HTTP in, bus out."""
