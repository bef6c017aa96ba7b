"""Rows kept on disk: folders or buckets, units, and who fills them."""
