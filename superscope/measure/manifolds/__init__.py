"""Features of more than one dimension: which shape have they, and what does a dictionary make of them?"""
