"""Retrievers: an engine a file, fusion of several, and replay of stored runs."""
