"""Where models come from, where they run, and how their inputs are batched."""
