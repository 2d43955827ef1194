"""Views: random crops and colour operations whose parameters are pure functions of their key."""
