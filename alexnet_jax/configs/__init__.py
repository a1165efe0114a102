"""Recipes as data: one file a run."""
