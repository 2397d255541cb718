"""An imaginary shop that reacts to its own orders."""
