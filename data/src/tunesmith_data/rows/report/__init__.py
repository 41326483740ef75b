"""Data report: its document, histograms, agreement of annotators."""
