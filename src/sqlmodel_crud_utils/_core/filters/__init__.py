"""Names and values of a caller, as criteria."""
