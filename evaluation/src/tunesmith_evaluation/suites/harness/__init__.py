"""Tasks of lm-evaluation-harness, on data that lies in files."""
