//! Profiles on demand over HTTP, as a function that any server can mount and as a small server.
