"""Whether a service keeps what its OpenAPI document promises: `make contract`."""
