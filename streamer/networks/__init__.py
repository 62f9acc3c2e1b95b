"""Networks: what turns arrays into arrays, and the weights that they have."""
