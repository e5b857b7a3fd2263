"""From an index recipe to artifacts: the corpus, then each index over it."""
