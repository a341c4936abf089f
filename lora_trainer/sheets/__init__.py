"""Pictures put together on one, with words beside them."""
