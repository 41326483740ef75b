"""Demo of the quickstart: cluster, images, chart, training, evaluation, a served request."""
