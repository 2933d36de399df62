"""Fit one shipped neural network to the board it runs on."""

__version__ = "0.1.0"
