"""Data report document, histograms, agreement of annotators."""
