"""HTTP for both products: the app factory, error rendering, TLS, who asks, pages."""
