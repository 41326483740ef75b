"""Console command ``prepare``: checks a data set on a computer without a cluster."""
