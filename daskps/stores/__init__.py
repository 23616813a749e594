"""Where objects are kept: ProxyStore connectors, and what opens and shares them."""
