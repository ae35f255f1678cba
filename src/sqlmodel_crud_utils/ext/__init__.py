"""Optional parts, each an extra of the distribution; nothing else imports them."""
