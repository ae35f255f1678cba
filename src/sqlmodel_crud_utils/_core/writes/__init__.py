"""INSERT, UPDATE and DELETE statements, and the rows that go into them."""
