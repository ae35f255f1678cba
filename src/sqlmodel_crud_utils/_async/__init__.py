"""What touches the database: reads, writes, transactions and connections."""
