"""How the verbs run: operations, blocks, rows, queries."""
