//! Guests for flamewalk's examples and tests: our own, and real programs built or fetched on demand
