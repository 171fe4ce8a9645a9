"""Figures as the paper shows them, as PNG; from arrays and plain values alone.

Needs matplotlib, which comes with the ``report`` extra.
"""
