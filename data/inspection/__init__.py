"""What training examples look like, as a page: examples out of batches, their media made visible and audible."""
