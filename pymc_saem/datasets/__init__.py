"""Small real data sets, as pandas DataFrames in long format."""

from .load import load_orange, load_theophylline

__all__ = ["load_orange", "load_theophylline"]
