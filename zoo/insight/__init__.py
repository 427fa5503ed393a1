"""Looking inside a network: filters, activations, signal, attribution."""
