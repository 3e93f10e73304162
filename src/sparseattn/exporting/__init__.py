"""Files that other runtimes run: a sparse model's attention as standard operators.

A window becomes overlapping chunks: blocks of queries, each with the keys within its reach, so that
nothing of length x length is computed. Global tokens become rows and columns of their own.
"""
