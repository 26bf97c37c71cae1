"""K-means, groups, and how clusters agree with labels."""
