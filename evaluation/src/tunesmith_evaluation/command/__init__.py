"""Console command `tunesmith-eval`: evaluation on a computer without a cluster, and pages of reports."""
