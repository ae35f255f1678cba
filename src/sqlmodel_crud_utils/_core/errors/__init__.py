"""What a driver's error says, and the library's error that follows from it."""
