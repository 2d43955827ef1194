"""Clustering: k-means, PCA, power iteration and nearest neighbours of features on many ranks."""
