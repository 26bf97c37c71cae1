"""The criteria for a number of clusters: what they are called, and what they say."""

CRITERIA = {
    "silhouette": ("silhouette", "how much nearer each one's own cluster is than the next; more is better"),
    "calinski_harabasz": ("Calinski–Harabasz", "variance between clusters by that within; more is better"),
    "stability": ("stability", "two halves, clustered apart: 1 is the same clusters, 0 chance"),
}
"""Name and meaning of each, by its column of numbers.csv."""
