"""Choosing, drawing and writing weights, and what is known of their origin."""
