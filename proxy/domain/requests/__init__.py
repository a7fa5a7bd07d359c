"""What is asked for: image requests, edits and chats, their sizes, inputs and idempotency."""
