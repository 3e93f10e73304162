"""Which keys each tile of queries needs: a layer's rule as lists."""
