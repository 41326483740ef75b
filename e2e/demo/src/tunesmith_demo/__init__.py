"""The quickstart as a show: a cluster, the images, the chart, training, a verdict, and an answered request."""
