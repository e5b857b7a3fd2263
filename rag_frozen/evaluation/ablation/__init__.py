"""Ablations: a grid of pipelines over one data set, in which no stage does the same work twice.

``grid`` says which pipelines there are, ``passes`` stores what they share, ``run`` makes them,
``table`` compares them.
"""
