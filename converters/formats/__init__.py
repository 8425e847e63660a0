"""Formats: one module each, reading into and writing from the words of the house."""
