"""Carries a spoken clip from a message bus through a pipeline of stages to its transcript."""

__version__ = "0.1.0"
