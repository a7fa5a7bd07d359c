"""Images: read from any provider, and written as OpenAI has them."""
