"""What is written into a column: checked, converted, stamped."""
