"""The page that shows a data report to people: one HTML file that needs nothing else."""
