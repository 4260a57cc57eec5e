"""Intermediate offloading points: a model cut in two, and a codec for the feature between."""
