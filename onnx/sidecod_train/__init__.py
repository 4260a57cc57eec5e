"""Trains and exports Sidecod's learned codecs: a data folder in, a codec bundle out."""

__version__ = "0.1.0"
