"""Studies: many trainings and evaluations of one question, with one table at the end."""
