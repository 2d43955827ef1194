"""Assigners: who makes the code that a view is asked to predict."""
