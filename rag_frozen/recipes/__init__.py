"""Recipes: the YAML files that say what to index, how to answer, what to train and measure."""
