"""Turns the names and values of filters into SQL criteria."""
