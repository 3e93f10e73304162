"""What a plan or a radius costs, counted over real tokens."""
