"""Rerankers: they score (question, passage) pairs jointly."""
